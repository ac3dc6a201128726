//! Patterns of IAM: `*` for any characters, `?` for one.

/// Whether the whole of `text` has the form of `pattern`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Row by row: which ends of `text` the pattern so far can reach.
    let mut ends = vec![false; text.len() + 1];
    if let Some(start) = ends.first_mut() {
        *start = true;
    }
    for wanted in pattern {
        let mut next = Vec::with_capacity(ends.len());
        let mut seen = false;
        for (index, reached) in ends.iter().enumerate() {
            seen |= reached;
            let before = index.checked_sub(1);
            let follows = before.is_some_and(|before| {
                ends.get(before) == Some(&true)
                    && (wanted == '?' || text.get(before) == Some(&wanted))
            });
            next.push(if wanted == '*' { seen } else { follows });
        }
        ends = next;
    }
    ends.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks_are_the_only_wildcards() {
        for (pattern, text) in [
            ("*", ""),
            ("kms:*", "kms:Decrypt"),
            ("kms:De*t", "kms:Decrypt"),
            ("*:?ecrypt", "kms:Decrypt"),
            ("a**b", "ab"),
            ("", ""),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("?", ""),
            ("kms:De", "kms:Decrypt"),
            ("Decrypt", "kms:Decrypt"),
            ("a*b", "abc"),
            ("", "a"),
            ("[a]", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
