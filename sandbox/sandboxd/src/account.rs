//! The unprivileged user that commands run as: the image's `agent`, or a default where the image has none. Read by
//! hand, since a static program has no name service. Called once, when sandboxd starts.

use std::{fs, io::Write, os::unix::fs::MetadataExt, path::Path};

/// The user's name, in every image.
pub(crate) const NAME: &str = "agent";
const DEFAULT_ID: u32 = 1000;

/// A user as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Finds the user, makes it known to the image's programs if it is not, and gives it its directories.
pub(crate) fn prepare() -> Account {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let account = find(&passwd, &group);
    if entries(&passwd).all(|entry| entry.id != account.uid) {
        // Many programs fail for a user without a name; if the image cannot be written they have to.
        append(
            "/etc/passwd",
            &passwd,
            &format!("{NAME}:x:{}:{}::{}:{}", account.uid, account.gid, account.home, account.shell),
        );
        if entries(&group).all(|entry| entry.id != account.gid) {
            append("/etc/group", &group, &format!("{NAME}:x:{}:", account.gid));
        }
    }
    for directory in ["/workspace", &account.home] {
        // A fresh volume belongs to root. If it has another owner, somebody has decided that.
        let _ = fs::create_dir_all(directory);
        if fs::symlink_metadata(directory).is_ok_and(|it| it.is_dir() && it.uid() == 0) {
            let _ = std::os::unix::fs::lchown(directory, Some(account.uid), Some(account.gid));
        }
    }
    account
}

struct Entry<'a> {
    name: &'a str,
    id: u32,
    rest: Vec<&'a str>,
}

/// The lines of a file like `/etc/passwd`: name, password, number, and more.
fn entries(file: &str) -> impl Iterator<Item = Entry<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some(Entry { name, id, rest: fields.collect() })
    })
}

fn find(passwd: &str, group: &str) -> Account {
    // An entry that makes it root, or that cannot be read, does not count.
    let found = entries(passwd).find(|entry| entry.name == NAME && entry.id != 0);
    let text = |place: usize, default: &str| {
        let value = found.as_ref().and_then(|entry| entry.rest.get(place)).copied().unwrap_or_default();
        if value.starts_with('/') { value.to_owned() } else { default.to_owned() }
    };
    let gid = found.as_ref().and_then(|entry| entry.rest.first()?.parse().ok()).filter(|gid| *gid != 0);
    let gid = gid.unwrap_or(DEFAULT_ID);
    let mut groups = vec![gid];
    groups.extend(entries(group).filter_map(|entry| {
        let member = entry.rest.first()?.split(',').any(|member| member == NAME);
        (member && entry.id != gid && entry.id != 0).then_some(entry.id)
    }));
    let default_shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    Account {
        uid: found.as_ref().map_or(DEFAULT_ID, |entry| entry.id),
        gid,
        groups,
        home: text(2, "/home/agent"),
        shell: text(3, default_shell),
    }
}

fn append(path: &str, before: &str, line: &str) {
    if let Ok(mut file) = fs::OpenOptions::new().append(true).open(path) {
        let separator = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        let _ = file.write_all(format!("{separator}{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_s_user_is_taken_with_its_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nagent:x:1005:1006:,,,:/srv/agent:/bin/zsh\n";
        let group = "root:x:0:agent\nagent:x:1006:\nvideo:x:44:other,agent\naudio:x:29:agents\n";
        let expected = Account {
            uid: 1005,
            gid: 1006,
            groups: vec![1006, 44],
            home: "/srv/agent".into(),
            shell: "/bin/zsh".into(),
        };
        assert_eq!(find(passwd, group), expected);
    }

    #[test]
    fn without_one_or_with_a_bad_one_the_default_holds() {
        for passwd in
            ["", "root:x:0:0:root:/root:/bin/bash\n", "agent:x:0:0::/root:/bin/sh", "agent:x:many:1::/:", "agent"]
        {
            let account = find(passwd, "");
            assert_eq!((account.uid, account.gid, account.home.as_str()), (1000, 1000, "/home/agent"), "{passwd}");
        }
    }
}
