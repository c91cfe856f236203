//! A repository in a sandbox that says how it is set up, as a script in that sandbox tells of it (`look.sh`).
//!
//! What a room's sandbox tells is a claim and no more: it says which environment is looked for. What is kept is made of
//! what the workshop's own clone tells.

use std::time::Duration;

use super::EnvironmentError;
use crate::{
    ids::{digest, random},
    rights::Repository,
    sandbox::{Captured, Command, Exit, Sandbox, Stdin, User},
    text,
};

const SCRIPT: &str = include_str!("look.sh");
/// Tells the notes in a workspace, a line each: folder, key, kind; then bytes and repository if something was brought.
const NOTES: &str = r#"cd /workspace || exit
for note in */.git/matrix-agent-environment; do
    [ -f "$note" ] && printf '%s %s\n' "${note%%/*}" "$(head -n 1 "$note" | head -c 400)"
done | head -c 65536"#;
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The most repositories of a workspace that are looked at.
const MOST: usize = 8;
/// The most characters of a name, a path and a remote.
const LONGEST: usize = 200;
/// Changed when what is kept no longer means the same.
const FORMAT: &str = "environment-1";

/// A repository with a script that sets it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder's name in the workspace.
    pub(super) folder: String,
    /// The script's path in the repository.
    pub(super) script: String,
    /// Whether root runs a script of its own before.
    pub(super) system: bool,
    /// Where it comes from: `https://…`, without any credentials.
    pub(super) url: String,
    /// A digest of the script and the files that fix versions.
    pub(super) state: String,
}

/// What was brought into a room, as its sandbox tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The folder's name in the workspace.
    pub folder: String,
    /// How people call the repository.
    pub repository: String,
    /// How many bytes were brought.
    pub bytes: u64,
}

impl Place {
    /// Returns how people call the repository: `owner/name` at GitHub, else host and path.
    pub fn repository(&self) -> String {
        self.at_github().map_or_else(
            || self.url.trim_start_matches("https://").to_owned(),
            |repository| repository.as_str().to_owned(),
        )
    }

    /// Returns its script's path in the repository.
    pub fn script(&self) -> &str {
        &self.script
    }

    /// Returns its name at GitHub, if it is there.
    pub(super) fn at_github(&self) -> Option<Repository> {
        Repository::of_remote(&self.url)
    }

    /// Returns the name of its environment in sandboxes of this image.
    pub(super) fn key(&self, image: &str) -> String {
        digest(&[FORMAT, image, &self.url, &self.folder, &self.script, &self.state], 16)
    }

    /// Reads a line of the script; `None` if it is none, or names what is not set up from here.
    fn read(line: &str, mark: &str) -> Option<Self> {
        let mut fields = line.strip_prefix(mark)?.strip_prefix('\t')?.split('\t');
        let mut next = || fields.next().filter(|field| (1..=LONGEST).contains(&field.len()));
        let (folder, script, system, remote, state) = (next()?, next()?, next()?, next()?, next()?);
        let plain = |text: &str, more: &[u8]| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
                && !text.starts_with(['-', '.'])
        };
        let is_path = script.split('/').all(|part| !part.is_empty() && part != ".." && !part.starts_with('-'));
        let is_script = is_path && plain(script.trim_start_matches('.'), b"._-/");
        let is_state = state.len() == 64 && state.bytes().all(|byte| byte.is_ascii_hexdigit());
        (plain(folder, b"._-") && is_script && is_state).then_some(())?;
        let own = |text: &str| text.to_owned();
        let system = system == "system";
        Some(Self { folder: own(folder), script: own(script), system, url: url_of(remote)?, state: own(state) })
    }
}

/// Returns from where a remote can be cloned by whoever has no key: only where the other side shows who it is.
fn url_of(remote: &str) -> Option<String> {
    if let Some(repository) = Repository::of_remote(remote) {
        return Some(format!("https://github.com/{repository}"));
    }
    let rest = remote.strip_prefix("https://")?.trim_end_matches('/');
    let (host, path) = rest.split_once('/')?;
    let plain = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let is_url = plain(host, b".-:") && plain(path, b"._-/~+") && path.split('/').all(|part| part != "..");
    is_url.then(|| format!("https://{}/{path}", host.to_ascii_lowercase()))
}

impl Here {
    /// Reads a note with its folder before it; `None` if nothing was brought there, or it is no note.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next().filter(|word| (1..=LONGEST).contains(&word.len()));
        let (folder, _key, _kind, bytes, repository) = (next()?, next()?, next()?, next()?, next()?);
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_note = words.next().is_none() && plain(folder) && plain(repository);
        let (folder, repository) = (folder.to_owned(), repository.to_owned());
        is_note.then_some(Self { folder, repository, bytes: bytes.parse().ok()? })
    }
}

/// Looks at the folder `only` of a sandbox's workspace, or at all that were not looked at before.
pub(super) async fn look(sandbox: &Sandbox, only: Option<&str>) -> Result<Vec<Place>, EnvironmentError> {
    let mark = format!("@@{}", random(8));
    let (exit, output) = run(sandbox, "look", &["sh", "-c", SCRIPT, "look", &mark, only.unwrap_or_default()]).await?;
    let told = text::strip(&output.head);
    let places: Vec<_> = told.lines().filter_map(|line| Place::read(line, &mark)).take(MOST).collect();
    tracing::debug!(?exit, ?places, "looked for repositories that say how they are set up");
    Ok(places)
}

/// Notes in a sandbox that a folder was brought so many bytes, or that it was tried; `system`: that something of it belongs to
/// root.
pub(super) async fn note(
    sandbox: &Sandbox,
    place: &Place,
    key: &str,
    system: bool,
    bytes: Option<u64>,
) -> Result<(), EnvironmentError> {
    let file = format!("/workspace/{}/.git/matrix-agent-environment", place.folder);
    let kind = if system { "system" } else { "agent" };
    let brought = bytes.map(|bytes| format!(" {bytes} {}", place.repository())).unwrap_or_default();
    let noted = format!("{key} {kind}{brought}");
    run(sandbox, "note", &["sh", "-c", r#"printf '%s\n' "$2" > "$1""#, "note", &file, &noted]).await.map(drop)
}

/// Returns what the notes in a sandbox's workspace tell of what was brought there.
pub(super) async fn here(sandbox: &Sandbox) -> Result<Vec<Here>, EnvironmentError> {
    let (_, output) = run(sandbox, "here", &["sh", "-c", NOTES]).await?;
    Ok(text::strip(&output.head).lines().filter_map(Here::read).take(MOST).collect())
}

/// Runs a short script of ours as the agent's user.
async fn run(sandbox: &Sandbox, name: &str, argv: &[&str]) -> Result<(Exit, Captured), EnvironmentError> {
    let ended = sandbox.spawn(command(name, argv, LIMIT)).await?.wait().await?;
    Ok((ended.exit, ended.output))
}

/// Returns a command of the agent's user.
pub(super) fn command(name: &str, argv: &[&str], limit: Duration) -> Command {
    Command {
        id: format!("environment-{name}-{}", random(8)),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: Vec::new(),
        cwd: String::new(),
        user: User::Agent,
        stdin: Stdin::Null,
        timeout: Some(limit),
        background: false,
        writable: None,
        spooled: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(folder: &str, script: &str, remote: &str) -> Option<Place> {
        Place::read(&format!("@@m\t{folder}\t{script}\t-\t{remote}\t{}", "a".repeat(64)), "@@m")
    }

    #[test]
    fn a_repository_is_known_by_where_it_comes_from() {
        let of = |remote: &str| {
            line("site", ".matrix-agent/setup.sh", remote).map(|place| (place.url.clone(), place.repository()))
        };
        let site = Some(("https://github.com/acme/site".to_owned(), "acme/site".to_owned()));
        for remote in
            ["https://github.com/acme/site.git", "git@github.com:Acme/Site", "ssh://git@github.com/acme/site/"]
        {
            assert_eq!(of(remote), site, "{remote}");
        }
        let elsewhere = Some(("https://git.example.org/a/b.git".to_owned(), "git.example.org/a/b.git".to_owned()));
        assert_eq!(of("https://Git.Example.org/a/b.git"), elsewhere);
        for remote in [
            "",
            "/srv/site",
            "http://example.org/a",
            "https://u:p@example.org/a",
            "https://x.org/../a",
            "file:///x",
            "ext::sh -c x",
        ] {
            assert_eq!(of(remote), None, "{remote}");
        }
    }

    #[test]
    fn what_could_become_another_word_is_left_out() {
        let remote = "https://github.com/acme/site";
        for (folder, script) in [
            ("-site", "a.sh"),
            ("..", "a.sh"),
            ("a b", "a.sh"),
            ("site", "../a.sh"),
            ("site", "/a.sh"),
            ("site", "-x"),
            ("site", "a;b"),
            ("", "a.sh"),
        ] {
            assert_eq!(line(folder, script, remote), None, "{folder} {script}");
        }
        assert!(line("site", "scripts/set-up.sh", remote).is_some());
        assert_eq!(Place::read("@@m\tsite\ta.sh\t-\thttps://github.com/a/b\tshort", "@@m"), None);
        assert_eq!(Place::read("site\ta.sh", "@@m"), None);
    }

    #[test]
    fn a_note_tells_what_was_brought() {
        let site = Here { folder: "site".into(), repository: "acme/site".into(), bytes: 57 };
        assert_eq!(Here::read("site 0123abcd system 57 acme/site"), Some(site));
        for line in [
            "site 0123abcd agent",
            "site 0123abcd",
            "site 0123abcd agent x acme/site",
            "site 0123abcd agent 57 acme/site more",
            "site 0123abcd agent 57 a\u{202e}b",
            "",
        ] {
            assert_eq!(Here::read(line), None, "{line}");
        }
    }

    #[test]
    fn every_part_of_a_state_counts() {
        let place = line("site", "a.sh", "https://github.com/acme/site").unwrap();
        let key = place.key("sha256:1");
        assert_eq!(key, place.key("sha256:1"));
        let others = [
            place.key("sha256:2"),
            Place { folder: "other".into(), ..place.clone() }.key("sha256:1"),
            Place { script: "b.sh".into(), ..place.clone() }.key("sha256:1"),
            Place { url: "https://github.com/acme/other".into(), ..place.clone() }.key("sha256:1"),
            Place { state: "b".repeat(64), ..place }.key("sha256:1"),
        ];
        assert!(!others.contains(&key));
    }
}
