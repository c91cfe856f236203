//! The parsers of settings: each turns a text into its type or says what is wrong with it.
//!
//! Pure; used through the table in `keys.rs`. Error texts quote values through `quote`, since a secret may have
//! been pasted to the wrong key.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use reqwest::Url;
use secrecy::SecretString;

use super::{AgentChoice, JournalSync, LogFormat, Part, PlanApproval, SandboxRuntime, Wrong};
use crate::text;

/// The result of every parser.
pub(crate) type Parsed<T> = Result<T, Wrong>;

/// The longest setting in bytes.
const LONGEST: usize = 4096;
/// The most characters of a wrong value that are shown.
const SHOWN: usize = 40;

/// Returns a value as errors show it: one line, short, and hidden if it looks like a key or contains a password.
pub(super) fn quote(value: &str) -> String {
    const KEYS: [&str; 8] = ["sk-", "sk_", "ghp_", "gho_", "github_pat_", "AIza", "xoxb-", "eyJ"];
    let credentials = value.contains("://") && value.contains('@');
    if credentials || KEYS.iter().any(|prefix| value.trim_start().starts_with(prefix)) {
        return "the value (not shown: it looks like a secret)".to_owned();
    }
    format!("`{}`", text::one_line(value, SHOWN))
}

/// Any text on one line.
pub(super) fn words(value: &str) -> Parsed<String> {
    if value.len() > LONGEST {
        return Err(Wrong::new(
            format!("it is {} long", text::human_bytes(value.len() as u64)),
            format!("Write at most {LONGEST} bytes"),
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(Wrong::new("it holds control characters", "Write it again by hand, on one line"));
    }
    Ok(value.to_owned())
}

/// One word that may become part of a command line or a request.
fn word(value: &str, example: &str) -> Parsed<String> {
    let value = words(value)?;
    if value.starts_with('-') || value.contains(char::is_whitespace) {
        return Err(Wrong::new(format!("{} is not one word", quote(&value)), format!("Write it like `{example}`")));
    }
    Ok(value)
}

/// A model string in LiteLLM's form. Whether the provider exists is checked by `ops::settings`.
pub(super) fn model(value: &str) -> Parsed<String> {
    word(value, "openrouter/anthropic/claude-sonnet-4")
}

/// The number or the client id of a GitHub App.
pub(super) fn app_id(value: &str) -> Parsed<String> {
    word(value, "123456")
}

/// The name of a coding agent's model, which becomes an argument of its command.
pub(super) fn agent_model(value: &str) -> Parsed<String> {
    const EXAMPLE: &str = "gemini-2.5-pro";
    let model = word(value, EXAMPLE)?;
    if model.is_empty() || model.starts_with('-') {
        return Err(Wrong::new(format!("{} is no model", quote(&model)), format!("Write it like `{EXAMPLE}`")));
    }
    Ok(model)
}

/// A model of the registry of inference servers.
pub(super) fn registry_model(value: &str) -> Parsed<String> {
    const EXAMPLE: &str = "localbot/nemo30b";
    let model = word(value, EXAMPLE)?;
    if model.starts_with("localbot/") {
        return Ok(model);
    }
    Err(Wrong::new(format!("{} names no model of the registry", quote(&model)), format!("Write it like `{EXAMPLE}`")))
}

/// A reference to an image.
pub(super) fn image(value: &str) -> Parsed<String> {
    let value = word(value, "matrix-agent-sandbox:latest")?;
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./:@_-".contains(&byte)) {
        return Ok(value);
    }
    Err(Wrong::new(
        format!("{} is not the name of an image", quote(&value)),
        "Write it like `matrix-agent-sandbox:latest`",
    ))
}

/// A program: a name on the PATH or an absolute path.
pub(super) fn program(value: &str) -> Parsed<PathBuf> {
    if value.contains('/') {
        return path(value);
    }
    word(value, "podman").map(PathBuf::from)
}

/// A password: anything on one line.
pub(super) fn password(value: &str) -> Parsed<SecretString> {
    words(value).map(SecretString::from)
}

/// A key or token that travels in an HTTP header.
pub(super) fn token(value: &str) -> Parsed<SecretString> {
    if value.len() <= LONGEST && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(SecretString::from(value));
    }
    Err(Wrong::new(
        "it holds blanks or other characters that no key has",
        "Copy the key again, whole and without anything around it",
    ))
}

/// The secret of a webhook, or the path of a file with it.
pub(super) fn webhook_secret(value: &str) -> Parsed<SecretString> {
    const SHORTEST: usize = 16;
    if value.starts_with('/') || value.len() >= SHORTEST {
        return token(value);
    }
    let what =
        if value.trim().is_empty() { "it is empty, so that anybody could send events" } else { "it is too short" };
    Err(Wrong::new(what, "Write what `openssl rand -hex 32` prints here and at GitHub, or remove the line"))
}

/// A whole number between two bounds.
pub(super) fn count<T: TryFrom<u32>, const MIN: u32, const MAX: u32>(value: &str) -> Parsed<T> {
    let mend = || format!("Write a whole number from {MIN} to {MAX}");
    match u64::from_str(value).map(|number| (number, u32::try_from(number).ok())) {
        Ok((number, small)) => small
            .filter(|small| (MIN..=MAX).contains(small))
            .and_then(|small| T::try_from(small).ok())
            .ok_or_else(|| Wrong::new(format!("{number} is out of range"), mend())),
        Err(_) => Err(Wrong::new(format!("{} is not a whole number", quote(value)), mend())),
    }
}

/// A number of tokens, as `!budget` takes it.
pub(super) fn tokens(value: &str) -> Parsed<u64> {
    text::amount(value).ok_or_else(|| {
        let mend = "Write a whole number, or one with `k` or `M`, such as `500k` or `1.5M`";
        Wrong::new(format!("{} is no number of tokens", quote(value)), mend)
    })
}

/// A time in seconds, up to a week.
pub(super) fn seconds<const MIN: u64>(value: &str) -> Parsed<Duration> {
    const WEEK: u64 = 7 * 24 * 60 * 60;
    let mend = || format!("Write seconds as a whole number from {MIN} to {WEEK}, such as `{}`", MIN.max(120));
    match u64::from_str(value) {
        Ok(number) if (MIN..=WEEK).contains(&number) => Ok(Duration::from_secs(number)),
        Ok(number) => Err(Wrong::new(format!("{number} seconds are out of range"), mend())),
        Err(_) => Err(Wrong::new(format!("{} is not a number of seconds", quote(value)), mend())),
    }
}

/// A time in seconds, up to a minute.
pub(super) fn up_to_a_minute(value: &str) -> Parsed<Duration> {
    count::<u32, 0, 60>(value).map(|seconds| Duration::from_secs(seconds.into()))
}

/// A time in hours, up to a year.
pub(super) fn hours(value: &str) -> Parsed<Duration> {
    const YEAR: u32 = 366 * 24;
    count::<u32, 0, YEAR>(value).map(|hours| Duration::from_hours(hours.into()))
}

/// A time in days, from one to ten years.
pub(super) fn days(value: &str) -> Parsed<Duration> {
    const TEN_YEARS: u32 = 3660;
    count::<u32, 1, TEN_YEARS>(value).map(|days| Duration::from_hours(24 * u64::from(days)))
}

/// A number of processors, which may be a fraction.
pub(super) fn cpus(value: &str) -> Parsed<f64> {
    match f64::from_str(value) {
        Ok(number) if (0.1..=1024.0).contains(&number) => Ok(number),
        _ => Err(Wrong::new(
            format!("{} is not a number of processors", quote(value)),
            "Write a number from 0.1 to 1024, such as `1.5`",
        )),
    }
}

/// A size of at least `MIN` bytes: `512m`, `1g`, `1.5 GiB`. All units are powers of 1024, as in Podman.
pub(super) fn size<const MIN: u64>(value: &str) -> Parsed<u64> {
    let unit_at = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(unit_at);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let least = text::human_bytes(MIN);
    let bytes = shift.zip(f64::from_str(number).ok()).map(|(shift, number)| number * f64::from(shift).exp2());
    // Beyond 2^53 a float no longer holds every byte, and no disk is that large.
    match bytes {
        Some(bytes) if bytes > 9_007_199_254_740_992.0 => {
            Err(Wrong::new(format!("{} is larger than any disk", quote(value)), "Write a size such as `10g`"))
        }
        Some(bytes) if bytes.round() as u64 >= MIN => Ok(bytes.round() as u64),
        Some(bytes) => Err(Wrong::new(
            format!("{} is too small", text::human_bytes(bytes as u64)),
            format!("Write at least {least}; a unit makes it clear, as in `512m` or `2g`"),
        )),
        None => Err(Wrong::new(format!("{} is not a size", quote(value)), "Write a size such as `512m` or `10g`")),
    }
}

/// A percentage of the host's memory, or a size of at least 64 MiB.
pub(super) fn part(value: &str) -> Parsed<Part> {
    let Some(percent) = value.strip_suffix('%') else { return size::<{ 64 << 20 }>(value).map(Part::Bytes) };
    match u32::from_str(percent.trim_end()) {
        Ok(percent @ 1..=100) => Ok(Part::Percent(percent)),
        _ => Err(Wrong::new(
            format!("{} is not a part", quote(value)),
            "Write a percentage from `1%` to `100%`, or a size such as `8g`",
        )),
    }
}

/// Who approves plans.
pub(super) fn plan_approval(value: &str) -> Parsed<PlanApproval> {
    match value.to_ascii_lowercase().as_str() {
        "off" => Ok(PlanApproval::Off),
        "asker" => Ok(PlanApproval::Asker),
        "second" => Ok(PlanApproval::Second),
        _ => Err(Wrong::new(format!("{} approves no plan", quote(value)), "Write `asker`, `second` or `off`")),
    }
}

/// An IP address.
pub(super) fn ip(value: &str) -> Parsed<IpAddr> {
    IpAddr::from_str(value).map_err(|_| {
        Wrong::new(
            format!("{} is not an IP address", quote(value)),
            "Write the address alone, such as `203.0.113.7`; for a host name set MATRIX_HOMESERVER, MATRIX_USER and \
             MATRIX_ADMIN_USER instead",
        )
    })
}

/// Where to listen: a port of this machine's loopback, or an address with a port.
pub(super) fn listen(value: &str) -> Parsed<SocketAddr> {
    let port = value.strip_prefix("localhost:").unwrap_or(value);
    let here = u16::from_str(port).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = here.or_else(|_| SocketAddr::from_str(value)).ok();
    // Port 0 would be another one at each start, which no proxy could find.
    address.filter(|address| address.port() != 0).ok_or_else(|| {
        Wrong::new(
            format!("{} is no address to listen at", quote(value)),
            "Write a port, such as `8090`, or an address with a port, such as `127.0.0.1:8090`",
        )
    })
}

/// A base URL, without credentials, query or final slash.
pub(super) fn url(value: &str) -> Parsed<Url> {
    let wrong = |what: &str| {
        Wrong::new(
            format!("{} {what}", quote(value)),
            "Write it like `https://host.example` or `http://127.0.0.1:8008`",
        )
    };
    let mut url = Url::parse(&words(value)?).map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("is no http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new("the URL holds a user name or a password", "Leave them out of the URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a `?` or `#` part"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// An absolute path.
pub(super) fn path(value: &str) -> Parsed<PathBuf> {
    let value = words(value)?;
    if value.starts_with('/') && !value.split('/').any(|part| part == "..") {
        return Ok(PathBuf::from(value));
    }
    Err(Wrong::new(
        format!("{} is not an absolute path", quote(&value)),
        "Write the whole path, from `/` on, without `..`",
    ))
}

/// A directory for sockets, whose paths the kernel limits to 108 bytes.
pub(super) fn socket_folder(value: &str) -> Parsed<PathBuf> {
    const LONGEST_FOLDER: usize = 80;
    let path = path(value)?;
    if path.as_os_str().len() <= LONGEST_FOLDER {
        return Ok(path);
    }
    Err(Wrong::new(
        format!("the path has {} bytes", path.as_os_str().len()),
        format!("Choose one of at most {LONGEST_FOLDER}: sockets are made in it, and their paths are limited"),
    ))
}

/// A Unix socket, as a path or as `unix://` and a path.
pub(super) fn socket(value: &str) -> Parsed<PathBuf> {
    let bare = value.strip_prefix("unix://").unwrap_or(value);
    if bare.contains("://") {
        return Err(Wrong::new(
            format!("{} is not a Unix socket", quote(value)),
            "Write the path of Podman's socket, such as `/run/podman/podman.sock`",
        ));
    }
    if bare.len() > 107 {
        return Err(Wrong::new("the path is longer than a socket's can be", "Choose one of at most 107 bytes"));
    }
    path(bare)
}

/// A Matrix user: `@name:server`.
pub(super) fn user(value: &str) -> Parsed<String> {
    let value = words(value)?;
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "*,@".contains(c));
    let parts = value.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    let valid = value.len() <= 255 && parts.is_some_and(|(name, server)| plain(name) && plain(server));
    if valid {
        return Ok(value);
    }
    Err(Wrong::new(format!("{} is not a Matrix user", quote(&value)), "Write it like `@name:server.example`"))
}

/// A public name of a host.
pub(super) fn host_name(value: &str) -> Parsed<String> {
    let value = words(value)?.to_ascii_lowercase();
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    if value.len() <= 253 && value.contains('.') && value.split('.').all(is_label) {
        return Ok(value);
    }
    Err(Wrong::new(format!("{} is no public name", quote(&value)), "Write it like `example.org`, without `https://`"))
}

/// The part of a Matrix user before the colon.
pub(super) fn localpart(value: &str) -> Parsed<String> {
    let value = words(value)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
    if (1..=64).contains(&value.len()) && value.chars().all(plain) {
        return Ok(value);
    }
    let what = format!("{} cannot begin a Matrix user ID", quote(&value));
    Err(Wrong::new(what, "Write it without `@` and server, in small letters, such as `exobot`"))
}

/// What the original calls the Linux beside Android's in which its programs run; there is none here.
pub(super) fn no_distro(_: &str) -> Parsed<()> {
    let mend = "Remove it, and write paths of this machine to LLAMA_SERVER_BIN and MODEL_PATH; a llama-server of another Linux runs as a container image, LLAMA_SERVER_IMAGE";
    Err(Wrong::new("programs are started on this machine itself, and in no proot distribution", mend))
}

/// A list of Matrix users.
pub(super) fn users(value: &str) -> Parsed<Vec<String>> {
    list(value)?.iter().map(|entry| user(entry)).collect()
}

/// A list of Matrix users, in which `@*:server` stands for everybody on a server.
pub(super) fn user_patterns(value: &str) -> Parsed<Vec<String>> {
    let check = |entry: String| match entry.strip_prefix("@*:") {
        Some(server) => user(&format!("@anybody:{server}")).map(|_| entry.clone()),
        None => user(&entry),
    };
    list(value)?.into_iter().map(check).collect()
}

/// The id of a Matrix room.
pub(super) fn room(value: &str) -> Parsed<String> {
    let is_id = value.strip_prefix('!').is_some_and(|id| !id.is_empty() && !id.starts_with(':'));
    if value.len() > 255 || !is_id {
        let mend = "Write its id like `!id:server.example`; a client shows it in the room's advanced settings";
        return Err(Wrong::new(format!("{} is not the id of a Matrix room", quote(value)), mend));
    }
    Ok(value.to_owned())
}

/// A list of Matrix rooms: `!id:server`, `!id` as in newer room versions, or `#alias:server`. `none` is refused,
/// since an empty list would open every room.
pub(super) fn rooms(value: &str) -> Parsed<Vec<String>> {
    let rooms = if value.trim().is_empty() { Vec::new() } else { list(value)? };
    if rooms.is_empty() {
        return Err(Wrong::new(
            "it names no room",
            "Write `none` behind ALLOWED_USERS if nobody is meant, or remove the line to allow every room to which an \
             allowed user invites the bot",
        ));
    }
    for room in &rooms {
        let id = room.strip_prefix('!').is_some_and(|id| !id.is_empty() && !id.starts_with(':'));
        let alias = room.strip_prefix('#').and_then(|alias| alias.split_once(':'));
        let alias = alias.is_some_and(|(name, server)| !name.is_empty() && !server.is_empty());
        if room.len() > 255 || !(id || alias) {
            return Err(Wrong::new(
                format!("{} is not a Matrix room", quote(room)),
                "Write its id or alias like `!id:server.example` or `#name:server.example`",
            ));
        }
    }
    Ok(rooms)
}

/// A list of words, separated by commas or blanks. A lone `none` is the empty list.
pub(super) fn list(value: &str) -> Parsed<Vec<String>> {
    let value = words(value)?;
    let entries: Vec<String> = value
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect();
    match entries.as_slice() {
        [] => Err(Wrong::new("the list is empty", "Write `none` if that is meant, else remove the line")),
        [only] if only == "none" => Ok(Vec::new()),
        _ => Ok(entries),
    }
}

/// Yes or no.
pub(super) fn flag(value: &str) -> Parsed<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(Wrong::new(format!("{} is neither true nor false", quote(value)), "Write `true` or `false`")),
    }
}

/// The name of a coding agent. Whether it exists is checked by the layer that knows them.
pub(super) fn agent(value: &str) -> Parsed<String> {
    const LONGEST: usize = 32;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=LONGEST).contains(&value.len()) && !value.starts_with('-') && value.chars().all(plain) {
        return Ok(value.to_owned());
    }
    Err(Wrong::new(
        format!("{} is no name of a coding agent", quote(value)),
        "Write `gemini`, `qwen` or the name of another profile: small letters, digits and `-`",
    ))
}

/// A list of coding agents, each followed by a colon and its model if that is not its usual one.
pub(super) fn agents(value: &str) -> Parsed<Vec<AgentChoice>> {
    let choice = |entry: String| {
        let (cli, model) = entry.split_once(':').map_or((&*entry, None), |(cli, model)| (cli, Some(model)));
        Ok(AgentChoice { agent: agent(cli)?, model: model.map(agent_model).transpose()? })
    };
    list(value)?.into_iter().map(choice).collect()
}

pub(super) fn log_format(value: &str) -> Parsed<LogFormat> {
    match value {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(format!("{} is no format of the log", quote(value)), "Write `pretty` or `json`")),
    }
}

/// What runs the sandboxes' containers.
pub(super) fn runtime(value: &str) -> Parsed<SandboxRuntime> {
    match value {
        "runc" => Ok(SandboxRuntime::Runc),
        "crun" => Ok(SandboxRuntime::Crun),
        "runsc" => Ok(SandboxRuntime::Runsc),
        _ => Err(Wrong::new(
            format!("{} is no runtime with which sandboxes run", quote(value)),
            "Write `runc`, `crun` or `runsc`, or leave it out for Podman's own",
        )),
    }
}

/// How much a commit waits for the disk.
pub(super) fn journal_sync(value: &str) -> Parsed<JournalSync> {
    match value {
        "normal" => Ok(JournalSync::Normal),
        "full" => Ok(JournalSync::Full),
        _ => Err(Wrong::new(format!("{} is no such mode", quote(value)), "Write `normal` or `full`")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_podmans() {
        for (text, bytes) in [
            ("1g", 1 << 30),
            ("512m", 512 << 20),
            ("10GiB", 10 << 30),
            ("1.5 gb", 3 << 29),
            ("4096", 4096),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size::<1>(text), Ok(bytes), "{text}");
        }
        for text in ["", "g", "1x", "-1g", "1e3g", "1..2g", "NaN", "inf", "99999999t", "1 g b", "１g"] {
            assert!(size::<1>(text).is_err(), "{text}");
        }
        assert!(size::<1024>("6").unwrap_err().mend.contains("1 KiB"));
    }

    #[test]
    fn a_part_is_a_percentage_or_a_size() {
        assert_eq!(part("60%"), Ok(Part::Percent(60)));
        assert_eq!(part("5 %"), Ok(Part::Percent(5)));
        assert_eq!(part("8g"), Ok(Part::Bytes(8 << 30)));
        for text in ["0%", "101%", "-1%", "0.5%", "%", "60 %%", "1m"] {
            assert!(part(text).is_err(), "{text}");
        }
        assert_eq!(Part::Percent(60).of(1000), 600);
    }

    #[test]
    fn a_coding_agent_has_a_plain_name_and_its_model_is_no_flag() {
        assert_eq!(agent("gemini").as_deref(), Ok("gemini"));
        let choice =
            |agent: &str, model: Option<&str>| AgentChoice { agent: agent.to_owned(), model: model.map(str::to_owned) };
        let two = [choice("qwen", Some("coder:480b")), choice("gemini", None)];
        assert_eq!(agents("qwen:coder:480b, gemini"), Ok(two.to_vec()));
        assert_eq!(agents("none"), Ok(Vec::new()));
        for text in ["qwen:", "qwen:-x", "Qwen:x", "qwen:a B"] {
            assert!(agents(text).is_err(), "{text}");
        }
        assert!(agent("my agent").unwrap_err().mend.contains("qwen") && agent("").is_err());
        assert_eq!(agent_model("gemini-2.5-pro").as_deref(), Ok("gemini-2.5-pro"));
        for text in ["--yolo", "a b"] {
            assert!(agent_model(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_bounds() {
        assert_eq!(count::<u32, 1, 9>("9"), Ok(9));
        for text in ["0", "10", "-1", "1.0", "1_0", "18446744073709551616", "", "٣"] {
            assert!(count::<usize, 1, 9>(text).is_err(), "{text}");
        }
        assert!(cpus("NaN").is_err() && cpus("inf").is_err() && cpus("0").is_err());
        assert_eq!(cpus("1.5"), Ok(1.5));
        assert!(seconds::<1>("2m").is_err());
    }

    #[test]
    fn users_have_their_form() {
        for text in ["@me:example.org", "@a.b=c/d:h", "@me:[::1]:8448", "@me:203.0.113.7"] {
            assert_eq!(user(text).as_deref(), Ok(text));
        }
        for text in [
            "me",
            "@me",
            "me:example.org",
            "@:x",
            "@me:",
            "@a b:c",
            "@*:c",
            "@a,b:c",
            "@a@b:c",
            &format!("@{}:c", "a".repeat(300)),
        ] {
            assert!(user(text).is_err(), "{text}");
        }
        assert_eq!(user_patterns("@*:example.org, @me:x").unwrap().len(), 2);
        assert!(users("@*:example.org").is_err(), "nobody becomes an administrator by a pattern");
        assert!(user_patterns("@*").is_err() && user_patterns("*").is_err());
    }

    #[test]
    fn rooms_are_ids_or_aliases_and_never_none() {
        assert_eq!(rooms("!a:b.c, #team:b.c !AbC-no_server").unwrap().len(), 3);
        for text in
            ["none", "", "team", "#team", "#:b", "#team:", "!", "!:b", "@me:b", &format!("!{}", "a".repeat(300))]
        {
            assert!(rooms(text).is_err(), "{text}");
        }
        assert_eq!(hours("0"), Ok(Duration::ZERO));
        assert_eq!(days("30"), Ok(Duration::from_hours(30 * 24)));
        assert!(days("0").is_err() && days("3661").is_err() && days("30d").is_err());
        assert!(hours("-1").is_err() && hours("9000").is_err() && hours("1.5").is_err());
    }

    #[test]
    fn lists_are_never_empty_by_accident() {
        assert_eq!(list("a, b  c,").unwrap(), ["a", "b", "c"]);
        assert_eq!(list("none").unwrap(), [""; 0]);
        assert!(list(" , ").is_err());
    }

    #[test]
    fn a_port_alone_is_loopbacks() {
        for (text, address) in [
            ("8090", "127.0.0.1:8090"),
            ("localhost:8090", "127.0.0.1:8090"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:8090", "[::1]:8090"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), address);
        }
        for text in ["", "70000", "example.org:80", "127.0.0.1", "http://127.0.0.1:80", ":80", "0", "127.0.0.1:0"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_hold_no_credentials_and_no_final_slash() {
        assert_eq!(url("https://matrix.org/").unwrap().as_str(), "https://matrix.org/");
        assert_eq!(url("http://[::1]:8008").unwrap().port(), Some(8008));
        assert_eq!(url("https://host/v1/").unwrap().path(), "/v1");
        for text in ["matrix.org", "ftp://host", "http://", "https://host/?a=b", "javascript:alert(1)", "https://a b"] {
            assert!(url(text).is_err(), "{text}");
        }
        let wrong = url("https://me:hunter2@host").unwrap_err();
        assert!(!format!("{wrong:?}").contains("hunter2"));
        let wrong = url("me:hunter2@host://x").unwrap_err();
        assert!(!format!("{wrong:?}").contains("hunter2"));
    }

    #[test]
    fn what_looks_like_a_key_is_never_quoted() {
        let wrong = model("sk-ant-secret secret").unwrap_err();
        assert!(!format!("{wrong:?}").contains("secret secret"));
    }

    #[test]
    fn paths_are_absolute() {
        assert!(path("/var/lib/x").is_ok());
        for text in ["x", "./x", "/a/../b", "~/x", ""] {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(socket("unix:///run/p.sock"), Ok(PathBuf::from("/run/p.sock")));
        assert!(socket("tcp://1.2.3.4:5").is_err());
        assert!(socket_folder(&format!("/{}", "a".repeat(90))).is_err());
        assert!(program("-rf").is_err() && program("podman --x").is_err());
        assert_eq!(program("podman"), Ok(PathBuf::from("podman")));
    }

    proptest! {
        #[test]
        fn no_parser_panics(value in any::<String>()) {
            let _ = (words(&value), model(&value), image(&value), program(&value), token(&value), size::<7>(&value));
            let _ = (url(&value), path(&value), socket(&value), user_patterns(&value), ip(&value), cpus(&value));
        }

        #[test]
        fn sizes_survive_their_own_notation(bytes in 1_u64..(1 << 50)) {
            prop_assert_eq!(size::<1>(&bytes.to_string()), Ok(bytes));
        }
    }

    #[test]
    fn names_of_hosts_and_accounts_are_plain() {
        assert_eq!(host_name("AI.Example.org").unwrap(), "ai.example.org");
        for bad in ["", "localhost", "https://a.org", "a..org", "-a.org", "a.org:80", "a_b.org", "a.org/x"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
        assert_eq!(localpart("exo.bot-2").unwrap(), "exo.bot-2");
        for bad in ["", "@exobot", "exobot:a.org", "Exobot", "exo bot"] {
            assert!(localpart(bad).is_err(), "{bad}");
        }
    }
}
