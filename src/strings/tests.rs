//! All words are read here, as a stranger reads them.

use std::{fs, io, path::Path, time::Duration};

use super::{agents, budgets, commands, database, files, models, rights, rooms, sandboxes, terminals, turns};

/// What is read as a part of something else needs not be a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whole sentences.
    Says,
    /// Whole sentences about something that did not work: they say what to do next.
    Fails,
    /// Stands in a sentence.
    Part,
    /// A page, a heading, or what stands before or behind something.
    Frame,
}
use Kind::{Fails, Frame, Part, Says};

/// A word for people with its name.
struct Word {
    name: &'static str,
    kind: Kind,
    text: String,
}

macro_rules! words {
    ($($kind:ident $topic:ident::$name:ident $(($($argument:expr),*))?,)*) => {
        vec![$(Word {
            name: concat!(stringify!($topic), "::", stringify!($name)),
            kind: $kind,
            text: $topic::$name $(($($argument),*))?.to_string(),
        }),*]
    };
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
fn words() -> Vec<Word> {
    let (path, cause, minute) = (Path::new("/var/lib/x"), &io::Error::other("it is full"), Duration::from_mins(1));
    let ann = &["@ann:a.org".to_owned()];
    words![
        Part agents::told("in blue, please"),
        Part agents::TOLD_NEXT,
        Fails budgets::UNCOUNTED,
        Says budgets::room_near("500k"),
        Says budgets::person_near("@ann:a.org", "500k"),
        Fails budgets::room_over("500k", &budgets::goes_on("3 h", &[], "!budget 1M")),
        Fails budgets::person_over("@ben:a.org", "500k", &budgets::goes_on("3 h", ann, "!budget each 1M")),
        Fails budgets::goes_on("3 h", ann, "!budget 1M"),
        Fails budgets::busy(true),
        Fails budgets::UNCLEAR,
        Says budgets::not_yours(ann),
        Says budgets::room_allowed("1M", "500k"),
        Says budgets::people_allowed("1M", ann),
        Says rights::NONE,
        Frame rights::GRANTED,
        Frame rights::granted(&"acme/site", true, "@ann:a.org", rights::LEFT_OF_TURN),
        Part rights::left("2 h"),
        Part rights::LEFT_OF_TURN,
        Part rights::LEFT_FOR_EVER,
        Says rights::grant(&"acme/site", true, rights::LEFT_FOR_EVER),
        Fails rights::UNCLEAR,
        Says rights::not_yours(ann),
        Fails rights::TOO_MANY,
        Says rights::revoked(0),
        Says rights::revoked(1),
        Says rights::revoked(2),
        Fails rights::not_for_guests("push to `acme/site`"),
        Fails rights::nobody_asks("push to `acme/site`"),
        Fails rights::unasked("push to `acme/site`"),
        Fails rights::refused("push to `acme/site`"),
        Fails rights::unanswered("push to `acme/site`"),
        Fails rights::stopped("push to `acme/site`"),
        Fails rights::overtaken("push to `acme/site`"),
        Part rights::reach("x.org"),
        Part rights::ANY_USER,
        Part rights::admins(ann),
        Frame rights::carry_out("1. Write hello.txt"),
        Frame rights::not_for_you(true),
        Frame rights::not_for_you(false),
        Frame rights::card("reach `x.org`", "run_command npm install", ann, "1. one\n\n2. two", "K7QFB", rights::ANY_USER, true, true, "1 min"),
        Frame rights::allowed("reach `x.org`", "@ann:a.org", Some(rights::LEFT_OF_TURN)),
        Frame rights::denied("reach `x.org`", "@ann:a.org"),
        Frame rights::expired("reach `x.org`"),
        Frame rights::withdrawn("reach `x.org`"),
        Says rights::UNREADABLE_ANSWER,
        Fails rights::not_open("K7QFB"),
        Says rights::not_yours_to_answer(ann),
        Says rights::GUESTS_ANSWER_NOTHING,
        Fails rights::UNKNOWN,
        Frame budgets::standing(true, "84k", Some(("500k", 16)), "20k"),
        Says budgets::NO_COST,
        Frame budgets::cost(7),
        Frame budgets::COST_TODAY,
        Frame budgets::cost_line("2026-01-01", 1, 2, 3, 4, "$0.42"),
        Frame budgets::cost_of("qwen", "m", "@ann:a.org"),
        Frame commands::HELP,
        Says commands::NEW,
        Says commands::NOTHING_RUNS,
        Says commands::NO_JOBS,
        Says commands::jobs_left("`npm run dev`", 1),
        Says commands::jobs_ended("`npm run dev`"),
        Fails commands::TOO_SLOW,
        Fails commands::unknown("x"),
        Frame commands::failed("the sandbox is paused"),
        Says commands::memory(&[]),
        Says commands::model("m", 1000, "as it says itself", true),
        Says commands::working("mend it", "0:10", 2, Some("run_command: ls")),
        Says commands::queued("mend it", 0),
        Says commands::queued("mend it", 2),
        Says commands::fetching("a.txt"),
        Says commands::model_and_sandbox("m", commands::SANDBOX_NOT_MADE),
        Part commands::sandbox_last_used("running", "2 minutes"),
        Part commands::SANDBOX_NOT_MADE,
        Part commands::sandbox_unseen("Podman is away"),
        Part commands::SANDBOX_UNSEEN_NOW,
        Fails database::not_opened(path, cause),
        Fails database::newer(path),
        Fails database::FULL,
        Fails database::SLOW,
        Says database::failed(cause),
        Says database::file_not_kept(cause),
        Says database::corrupt(cause),
        Says database::CLOSED,
        Part files::HOMESERVER_AWAY,
        Part files::UNNAMED,
        Part files::DOWNLOAD_SLOW,
        Part files::download_failed("it is away"),
        Fails files::gone("a.txt"),
        Fails files::too_large_to_send("a.txt", "2 MB", "1 MB"),
        Says files::saved("/workspace/a.png", Some("it is broken")),
        Fails files::too_large("a.txt", "2 MB", "1 MB"),
        Fails files::not_fetched("a.txt"),
        Fails files::not_saved("a.txt", "the sandbox is paused"),
        Part files::PICTURE_UNKNOWN,
        Part files::PICTURE_BROKEN,
        Part files::picture_too_large(1, 2),
        Part files::PICTURE_TOO_MANY_BYTES,
        Part files::PICTURE_BUSY,
        Part files::PICTURE_NOT_STORED,
        Frame models::said("no such key"),
        Says models::setting("LLM_MODEL", "it is empty"),
        Fails models::unreachable("host:80", "connection refused"),
        Fails models::key_refused(""),
        Fails models::forbidden(""),
        Fails models::no_credit(""),
        Fails models::unknown_model("m", ""),
        Fails models::rate_limited(Some(minute), ""),
        Fails models::rate_limited(None, ""),
        Fails models::overflow(""),
        Fails models::answer_too_long(""),
        Fails models::pictures(""),
        Fails models::REDIRECTED,
        Fails models::refused(400, ""),
        Fails models::unavailable(Some(500), None, ""),
        Fails models::slow(models::SLOW_BEGIN, minute),
        Part models::SLOW_BEGIN,
        Part models::SLOW_GO_ON,
        Part models::SLOW_END,
        Fails models::CUT,
        Fails models::garbled("no JSON"),
        Fails models::broken("no JSON"),
        Fails models::bad_call(""),
        Says rooms::GREETING,
        Fails rooms::UNREADABLE,
        Says rooms::CANNOT_VERIFY,
        Fails rooms::GAP,
        Fails rooms::INTERNAL,
        Fails rooms::bot_gone("x"),
        Fails rooms::unsupported("voice messages"),
        Part sandboxes::DISK_FAILED,
        Part sandboxes::DISK_AGAIN,
        Part sandboxes::FILES_LOST,
        Part sandboxes::disk_full("2 GB of 1 GB"),
        Part sandboxes::bytes_of("2 GB", "1 GB"),
        Part sandboxes::files_of(2, 1),
        Part sandboxes::hidden_bytes("2 GB"),
        Part sandboxes::counts_as_full("it cannot be counted"),
        Part sandboxes::wrote_most("2 GB"),
        Part sandboxes::frozen(),
        Frame sandboxes::waits_for_others("all 2 sandboxes are at work"),
        Part sandboxes::all_at_work(2),
        Part sandboxes::memory_short("2 GB", "1 GB"),
        Part sandboxes::socket(path, cause),
        Part sandboxes::install(path, cause),
        Part sandboxes::timed_out(minute, Some("a stranger knocked")),
        Part sandboxes::DISCONNECTED,
        Part sandboxes::declined("it is closed"),
        Part sandboxes::command_too_large(2_000_000),
        Part sandboxes::NOT_ENDED,
        Part sandboxes::not_listed("Podman is away"),
        Part sandboxes::died(1),
        Part sandboxes::no_place("all 2 sandboxes are at work", "MAX_RUNNING_SANDBOXES"),
        Part sandboxes::HOST_DISK_LOW,
        Part sandboxes::paused("x"),
        Part sandboxes::NO_IDS,
        Part sandboxes::volume(path, cause),
        Part sandboxes::events(path, cause),
        Part sandboxes::files(path, cause),
        Part sandboxes::not_mounted(path, "it is damaged"),
        Part sandboxes::not_counted(cause),
        Part sandboxes::no_sandbox("!r:x"),
        Part sandboxes::ambiguous("x"),
        Part sandboxes::state_dir_too_long(path, 80),
        Part sandboxes::SHUTTING_DOWN,
        Part sandboxes::other_protocol((1, 1), (3, 4)),
        Part sandboxes::not_sandboxd("no frame"),
        Part sandboxes::NOT_PID_1,
        Part sandboxes::podman_away("no such file"),
        Part sandboxes::podman_slow("start a container"),
        Part sandboxes::image_missing("x"),
        Part sandboxes::not_found("x"),
        Part sandboxes::name_taken("x"),
        Part sandboxes::podman_refused("start a container", "no space"),
        Part sandboxes::NO_FILE,
        Part sandboxes::IS_DIRECTORY,
        Part sandboxes::NOT_REGULAR,
        Part sandboxes::FILE_DENIED,
        Part sandboxes::NO_SPACE,
        Part sandboxes::file_too_large(5),
        Fails terminals::FULL,
        Says terminals::unreadable("it is too long"),
        Says terminals::no_frame("a brace is missing"),
        Says terminals::BLANK,
        Says terminals::DISK_FULL,
        Says terminals::message_too_long(2, 1),
        Says turns::STOPPED_BEFORE,
        Says turns::STOPPED,
        Says turns::SUMMARISING,
        Says turns::WRAPPING_UP,
        Fails turns::NO_ANSWER,
        Fails turns::BAD_CALLS,
        Fails turns::FILTERED,
        Frame turns::ONLY_THOUGHT,
        Frame turns::ANSWER_CUT,
        Fails turns::calls_no_tools(""),
        Frame turns::STOPPED_AT,
        Fails turns::limit_reached(turns::LIMIT_STUCK, turns::NEXT_OTHER_WAY),
        Part turns::limit_of_rounds(5),
        Part turns::limit_of_time("10 minutes"),
        Part turns::limit_of_tokens("84k"),
        Part turns::LIMIT_STUCK,
        Part turns::LIMIT_BAD_CALLS,
        Part turns::LIMIT_CONTEXT,
        Part turns::NEXT_GO_ON,
        Part turns::NEXT_OTHER_WAY,
        Part turns::NEXT_AFRESH,
        Says turns::failed("The model's answer broke off in the middle. Try again.", true),
    ]
}

/// Names of all that stands in the topics for people, as their sources have them.
fn written() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/strings");
    let mut names = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let topic = file.file_stem().unwrap().to_str().unwrap().to_owned();
        // What the model is told no person reads.
        if topic == "told" || topic == "tests" {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        assert!(!source.contains("crate::"), "{topic} knows of nobody, so it can tell no secret");
        for item in source.lines().filter_map(|line| line.strip_prefix("pub ")) {
            let item = item.strip_prefix("fn ").or_else(|| item.strip_prefix("const ")).unwrap();
            let end = item.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap();
            names.push(format!("{topic}::{}", &item[..end]));
        }
    }
    names
}

#[test]
fn all_words_are_read_here() {
    let words = words();
    let unread: Vec<_> = written().into_iter().filter(|name| !words.iter().any(|word| word.name == name)).collect();
    assert!(unread.is_empty(), "add them to the list above: {unread:?}");
}

/// Whoever reads these did nothing wrong, wants no shouting, and cannot do anything with an exception's name.
#[test]
fn they_blame_and_shout_at_nobody() {
    const UNHEARD: [&str; 12] = [
        "error",
        "exception",
        "invalid",
        "illegal",
        "fatal",
        "abort",
        "oops",
        "sorry",
        "unfortunately",
        "you must",
        "you have to",
        "your fault",
    ];
    for Word { name, text, .. } in words() {
        let heard = text.to_lowercase();
        for word in UNHEARD {
            assert!(!heard.contains(word), "{name} says {word:?}: {text}");
        }
        let shouts = text.ends_with('!') || text.contains("! ") || text.contains("!!");
        assert!(!shouts, "{name} shouts: {text}");
        assert!(!text.contains("  "), "{name} has a gap: {text}");
    }
}

#[test]
fn they_are_a_sentence_or_two_or_fit_into_one() {
    for Word { name, kind, text } in words() {
        let (first, last) = (text.chars().next().unwrap(), text.chars().last().unwrap());
        match kind {
            Says | Fails => {
                assert!(!first.is_lowercase() && last == '.', "{name} is no whole sentence: {text}");
                let sentences = text.matches(". ").count() + text.matches(".\n").count() + 1;
                assert!(sentences <= 3, "{name} is a speech: {text}");
            }
            Part => {
                let named = ["Podman ", "STATE_DIR ", "/", "!"].iter().any(|name| text.starts_with(name));
                assert!(named || !first.is_uppercase(), "{name} does not fit into a sentence: {text}");
                assert!(last != '.', "{name} ends the sentence that it stands in: {text}");
            }
            Frame => {}
        }
    }
}

#[test]
fn what_failed_says_what_to_do_next() {
    const NEXT: [&str; 15] = [
        "again",
        "ask",
        "send",
        "say ",
        "write",
        "check",
        "see ",
        "set ",
        "start a",
        "try",
        "close one",
        "tell me",
        "free some",
        "put it",
        "`!",
    ];
    for Word { name, text, .. } in words().into_iter().filter(|word| word.kind == Fails) {
        let heard = text.to_lowercase();
        assert!(NEXT.iter().any(|next| heard.contains(next)), "{name} leaves its reader alone: {text}");
    }
}
