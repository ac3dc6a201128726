//! Queries: byte strings by name, in hexadecimal.

/// Why a query asks for nothing that can be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("the parameters are {0}, in hexadecimal digits, each once at most")]
    Unknown(String),
    #[error("{0} is not in hexadecimal digits")]
    NotHexadecimal(&'static str),
    #[error("{name} is longer than {limit} bytes")]
    TooLong { name: &'static str, limit: usize },
}

/// A parameter's name, and the most bytes that it can have.
pub(super) type Parameter = (&'static str, usize);

/// The bytes of each parameter, if it is there.
pub(super) fn parse<const N: usize>(
    query: Option<&str>,
    parameters: [Parameter; N],
) -> Result<[Option<Vec<u8>>; N], QueryError> {
    let mut pairs: Vec<(&str, &str)> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let mut take = |(name, limit): Parameter| {
        let Some(index) = pairs.iter().position(|(found, _)| *found == name) else {
            return Ok(None);
        };
        let (_, digits) = pairs.swap_remove(index);
        let bytes = hex::decode(digits).map_err(|_| QueryError::NotHexadecimal(name))?;
        if bytes.len() > limit {
            return Err(QueryError::TooLong { name, limit });
        }
        Ok(Some(bytes))
    };
    let mut found = [const { None }; N];
    for (found, parameter) in found.iter_mut().zip(parameters) {
        *found = take(parameter)?;
    }
    if pairs.is_empty() {
        return Ok(found);
    }
    let names = parameters.map(|(name, _)| name).join(", ");
    Err(QueryError::Unknown(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Parameter = ("nonce", 4);

    fn nonce(query: &str) -> Result<Option<Vec<u8>>, QueryError> {
        parse(Some(query), [NONCE]).map(|[nonce]| nonce)
    }

    #[test]
    fn parameters_are_hexadecimal_bounded_and_known() {
        assert_eq!(parse(None, [NONCE]), Ok([None]));
        assert_eq!(nonce("nonce=0aFF"), Ok(Some(vec![10, 255])));
        assert_eq!(nonce("nonce=00000000"), Ok(Some(vec![0; 4])));
        assert_eq!(nonce("nonce="), Ok(Some(vec![])));
        let (name, limit) = NONCE;
        let unknown = || QueryError::Unknown("nonce".to_owned());
        for (bad, error) in [
            ("nonce=0", QueryError::NotHexadecimal("nonce")),
            ("nonce=zz", QueryError::NotHexadecimal("nonce")),
            ("nonce=0000000000", QueryError::TooLong { name, limit }),
            ("x=1", unknown()),
            ("nonce=00&x=1", unknown()),
            ("nonce=00&nonce=00", unknown()),
        ] {
            assert_eq!(nonce(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn the_order_does_not_matter() {
        let parameters = [NONCE, ("user_data", 1)];
        let both = Ok([Some(vec![1]), Some(vec![2])]);
        assert_eq!(parse(Some("nonce=01&user_data=02"), parameters), both);
        assert_eq!(parse(Some("user_data=02&nonce=01"), parameters), both);
        let one = parse(Some("user_data=02"), parameters);
        assert_eq!(one, Ok([None, Some(vec![2])]));
    }
}
