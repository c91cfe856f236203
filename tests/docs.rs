//! The documentation says what is so: each command in it is run here, in a folder of its own, or a comment before it says why
//! not; commands, options and scripts that it names exist, links lead somewhere, and what it quotes the program says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use assert_cmd::Command;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

const BINARY: &str = env!("CARGO_BIN_EXE_matrix-agent");
/// No block of commands takes longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// What a line of a shell begins with here; such lines stand in blocks that are marked as a shell's.
const PROGRAMS: [&str; 8] = ["matrix-agent", "sudo", "./scripts/", "scripts/", "podman", "systemctl", "occ", "apt"];

/// A block of commands.
#[derive(Debug)]
struct Block {
    text: String,
    /// Why it is not run.
    excuse: Option<String>,
}

/// A page of the documentation.
#[derive(Debug, Default)]
struct Page {
    path: PathBuf,
    shell: Vec<Block>,
    /// What stands in other blocks of code.
    other: Vec<String>,
    inline: Vec<String>,
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut page = Self { path: path.to_owned(), ..Self::default() };
        let (mut excuse, mut code, mut heading) = (None, None, None);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Html(html) => {
                    let reason = html.trim().strip_prefix("<!-- not run:").and_then(|rest| rest.strip_suffix("-->"));
                    excuse = reason.map(|reason| reason.trim().to_owned()).or(excuse);
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    code = Some((language, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => {
                    let (language, text) = code.take().unwrap();
                    if ["sh", "bash", "console"].contains(&language.as_str()) {
                        page.shell.push(Block { text, excuse: excuse.take() });
                    } else {
                        page.other.push(text);
                    }
                }
                Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => {}
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.insert(anchor(&heading.take().unwrap()));
                }
                Event::Start(Tag::Link { dest_url: to, .. } | Tag::Image { dest_url: to, .. }) => {
                    page.links.push(to.into_string());
                    excuse = None;
                }
                Event::Start(_) => excuse = None,
                Event::Text(text) => {
                    if let Some(into) = code.as_mut().map(|(_, text)| text).or(heading.as_mut()) {
                        into.push_str(&text);
                    }
                }
                Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                    page.inline.push(text.into_string());
                }
                _ => {}
            }
        }
        page
    }

    fn name(&self) -> String {
        self.path.strip_prefix(repository()).unwrap().display().to_string()
    }

    /// Each command that it names, in its words.
    fn commands(&self) -> impl Iterator<Item = Vec<&str>> {
        let lines = self.shell.iter().flat_map(|block| block.text.lines());
        self.inline.iter().map(String::as_str).chain(lines).map(|line| {
            let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
            words.skip_while(|word| *word == "sudo").map(|word| word.trim_matches(['[', ']', ',', '…'])).collect()
        })
    }
}

/// What leads to a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chapters() -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

fn pages() -> Vec<Page> {
    let all =
        [chapters(), ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| repository().join(name)).to_vec()];
    all.concat().iter().map(|path| Page::read(path)).collect()
}

/// All that lies below a folder of the repository, as one text in which strings that go over several lines are one line.
fn sources(folder: &str) -> String {
    let mut all = String::new();
    let mut folders = vec![repository().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let mut lines = text.split("\\\n");
                all.push_str(lines.next().unwrap_or_default());
                lines.for_each(|line| all.push_str(line.trim_start()));
            }
        }
    }
    all
}

/// What `--help` says of a command.
fn help(words: &[String]) -> String {
    let asked = Command::new(&words[0]).args(&words[1..]).arg("--help").timeout(PATIENCE).output().unwrap();
    assert!(asked.status.success(), "{words:?} --help: {asked:?}");
    String::from_utf8(asked.stdout).unwrap()
}

/// A clone in a folder of its own, and a machine on which `sudo` gives nothing.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("clone");
    fs::create_dir_all(clone.join("sandbox")).unwrap();
    for name in [
        "Containerfile",
        ".containerignore",
        ".env.example",
        "Cargo.toml",
        "docs",
        "hooks",
        "sandbox/image",
        "scripts",
        "systemd",
    ] {
        let copied = Command::new("cp").arg("-R").arg(repository().join(name)).arg(clone.join(name)).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
    }
    let programs = folder.path().join("bin");
    fs::create_dir(&programs).unwrap();
    symlink(BINARY, programs.join("matrix-agent")).unwrap();
    fs::write(programs.join("sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(programs.join("sudo"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn each_command_is_run_or_says_why_not() {
    let mut run = 0;
    for page in pages() {
        for text in &page.other {
            let bare = text.lines().find(|line| PROGRAMS.iter().any(|program| line.starts_with(program)));
            assert_eq!(bare, None, "{}: a command stands in a block that is not marked as a shell's", page.name());
        }
        for block in &page.shell {
            if let Some(reason) = &block.excuse {
                let tests = reason.split([' ', ',', ';', ')']).filter(|word| word.starts_with("tests/"));
                tests.for_each(|test| assert!(repository().join(test).exists(), "{}: there is no {test}", page.name()));
                assert!(reason.len() > 10, "{}: `{reason}` is no reason", page.name());
                continue;
            }
            let place = place();
            let path = |name: &str| place.path().join(name);
            let ran = Command::new("bash")
                .args(["-euo", "pipefail", "-c", &block.text])
                .env_clear()
                .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", path("bin").display()))
                .env("HOME", path("home"))
                .env("STATE_DIR", path("state"))
                .env("SYNAPSE_NAME", "no-such-homeserver")
                .current_dir(path("clone"))
                .timeout(PATIENCE)
                .output()
                .unwrap();
            assert!(ran.status.success(), "{}: {}\n{ran:?}", page.name(), block.text);
            run += 1;
        }
    }
    assert!(run >= 5, "only {run} blocks are run: is it still seen which are?");
}

#[test]
fn commands_and_options_that_are_named_exist() {
    let mut known = BTreeMap::new();
    let mut named = 0;
    for page in pages() {
        for mut words in page.commands() {
            let Some(first) = words.first() else { continue };
            let mut command = vec![];
            if *first == "matrix-agent" {
                while words.get(1).is_some_and(|word| ["--env-file", "--config-file"].contains(word)) {
                    words.drain(1..words.len().min(3));
                }
                let Some(subcommand) = words.get(1).filter(|word| is_word(word)) else { continue };
                command.extend([BINARY.to_owned(), (*subcommand).to_owned()]);
                let told = known.entry(command.clone()).or_insert_with(|| help(&command));
                if let Some(further) = words.get(2).filter(|word| is_word(word) && told.contains("Commands:")) {
                    command.push((*further).to_owned());
                }
            } else if let Some(name) =
                Path::new(first).file_name().filter(|name| Path::new(name).extension() == Some("sh".as_ref()))
            {
                let path = repository().join("scripts").join(name);
                let ours = first.trim_start_matches("./").starts_with("scripts/");
                assert!(path.exists() || !ours, "{}: there is no {}", page.name(), path.display());
                // One without help would do what it is for.
                if !path.exists() || !fs::read_to_string(&path).unwrap().contains("show_help &&") {
                    continue;
                }
                command.push(path.to_str().unwrap().to_owned());
            } else {
                continue;
            }
            let told = known.entry(command.clone()).or_insert_with(|| help(&command));
            let words = words.iter().take_while(|word| !["--", "|"].contains(word));
            for option in words.filter(|word| word.starts_with("--")).filter_map(|word| word.split('=').next()) {
                assert!(told.contains(option), "{}: {command:?} has no {option}", page.name());
            }
            named += 1;
        }
    }
    assert!(named > 60, "only {named} commands were seen: is it still seen which are?");
}

fn is_word(word: &str) -> bool {
    word.chars().all(|char| char.is_ascii_lowercase() || char == '-') && !word.starts_with('-')
}

#[test]
fn links_lead_somewhere_and_the_book_has_every_page() {
    let mut links = 0;
    for page in pages() {
        for link in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) =
                link.split_once('#').map_or((link.as_str(), None), |(file, part)| (file, Some(part)));
            let to = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {link} leads nowhere", page.name());
            // The book has what is in `docs`, and ARCHITECTURE.md, which it takes over as it is.
            let in_book = page.name().starts_with("docs/") && !file.starts_with("../") || page.name() == "README.md";
            assert!(in_book || page.name() == "CONTRIBUTING.md", "{}: {link} leads nowhere in the book", page.name());
            if let Some(fragment) = fragment {
                assert!(Page::read(&to).anchors.contains(fragment), "{}: {link} leads to no heading", page.name());
            }
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links were seen");
    let summary = Page::read(&repository().join("docs/SUMMARY.md")).links;
    for chapter in chapters() {
        let name = chapter.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name == "SUMMARY.md" || summary.contains(&name), "docs/SUMMARY.md lacks {name}");
    }
}

#[test]
fn what_troubleshooting_quotes_is_what_the_program_says() {
    let said = [sources("src"), sources("scripts")].concat();
    let page = fs::read_to_string(repository().join("docs/troubleshooting.md")).unwrap();
    let quotes: Vec<_> = page.split('“').skip(1).map(|rest| rest.split('”').next().unwrap()).collect();
    assert!(quotes.len() > 30, "{quotes:?}");
    for quote in quotes {
        for part in quote.split('…').map(str::trim).filter(|part| part.len() > 1) {
            assert!(said.contains(part), "“{quote}”: nothing says `{part}`");
        }
    }
}

#[test]
fn the_module_for_nixos_closes_what_the_unit_closes() {
    let module = fs::read_to_string(repository().join("nix/module.nix")).unwrap();
    let mut compared = 0;
    for unit in ["matrix-agent.service", "matrix-agent-podman.service", "matrix-agent-podman.socket"] {
        let text = fs::read_to_string(repository().join("systemd").join(unit)).unwrap();
        let section = text.split("[Service]\n").chain(text.split("[Socket]\n").skip(1)).nth(1).unwrap();
        let section = section.split("[Install]").next().unwrap();
        let lines = section.lines().filter(|line| !line.starts_with('#'));
        for (key, value) in lines.filter_map(|line| line.split_once('=')) {
            // These name other paths there, or several.
            if !["ExecStart", "LoadCredential", "Environment", "EnvironmentFile", "ListenStream"].contains(&key) {
                assert!(module.contains(&format!(" {key} = \"{value}\";")), "nix/module.nix lacks {key}={value}");
                compared += 1;
            }
        }
    }
    assert!(compared > 30, "{compared}");
}
