//! `user[:group]` of an image, as numbers: resolved in the image's own `/etc/passwd` and
//! `/etc/group` (OCI image-spec, config.md, "User"; passwd(5), group(5)).

use crate::error::BootError;
use wire::control::AbortReason;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Groups beside the first; only where the spec names no group itself.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

pub(crate) fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, BootError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let account =
        accounts(passwd).find(|account| account.name == name || account.uid.to_string() == name);
    let uid = match (&account, name.parse()) {
        (Some(account), _) => account.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(missing("user", name, "/etc/passwd")),
    };
    let gid = match group_name {
        Some(wanted) => find_group(wanted, group)?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    let groups = match (&account, group_name) {
        (Some(account), None) => member_of(&account.name, group)
            .filter(|other| *other != gid)
            .collect(),
        _ => Vec::new(),
    };
    let home = account
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    Ok(User {
        uid,
        gid,
        groups,
        home,
    })
}

fn missing(what: &str, name: &str, file: &str) -> BootError {
    let shown: String = name.chars().take(100).collect();
    BootError::new(
        AbortReason::User,
        format!("the {what} '{shown}' is not in the image's {file}"),
    )
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Account {
            name: name.to_owned(),
            uid,
            gid,
            home: home.to_owned(),
        })
    })
}

/// Name, number and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some((
            name,
            fields.next()?.parse().ok()?,
            fields.next().unwrap_or_default(),
        ))
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, BootError> {
    let known = groups(group).find(|(name, gid, _)| *name == wanted || gid.to_string() == wanted);
    match (known, wanted.parse()) {
        (Some((_, gid, _)), _) => Ok(gid),
        (None, Ok(gid)) => Ok(gid),
        (None, Err(_)) => Err(missing("group", wanted, "/etc/group")),
    }
}

fn member_of<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(group)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv/web:/bin/false\nbroken\nnohome:x:7:7\n";
    const GROUP: &str = "root:x:0:\nweb:x:1001:\nlogs:x:4:syslog,web\nssl:x:5:web\n";

    fn user(text: &str) -> Result<User, String> {
        resolve(text, PASSWD, GROUP).map_err(|error| error.detail)
    }

    fn is(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<User, String> {
        Ok(User {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        })
    }

    #[test]
    fn finds_names_and_numbers_in_the_images_own_files() {
        assert_eq!(user(""), is(0, 0, &[], "/root"));
        assert_eq!(user("web"), is(1000, 1001, &[4, 5], "/srv/web"));
        assert_eq!(user("1000"), is(1000, 1001, &[4, 5], "/srv/web"));
        assert_eq!(user("web:logs"), is(1000, 4, &[], "/srv/web"));
        assert_eq!(user("4711"), is(4711, 0, &[], "/"));
        assert_eq!(user("4711:12"), is(4711, 12, &[], "/"));
        assert_eq!(user("nohome"), is(7, 7, &[], "/"));
    }

    #[test]
    fn refuses_names_that_the_image_does_not_have() {
        assert_eq!(
            user("nobody").unwrap_err(),
            "the user 'nobody' is not in the image's /etc/passwd"
        );
        assert_eq!(
            user("web:staff").unwrap_err(),
            "the group 'staff' is not in the image's /etc/group"
        );
        assert_eq!(
            user("4294967296").unwrap_err(),
            "the user '4294967296' is not in the image's /etc/passwd"
        );
    }
}
