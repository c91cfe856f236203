//! All words are read here, as a stranger reads them.

use std::{collections::BTreeSet, fs, io, path::Path, time::Duration};

use super::{
    admin, agents, budgets, chat, commands, database, environments, exobot, files, github, localbot, models, rights,
    rooms, sandboxes, talk, tasks, terminals, turns, updates,
};

/// What stands in the topics and is not read by anybody.
const NO_WORDS: [&str; 1] = ["github::asked_by"];

/// What is read as a part of something else needs not be a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whole sentences.
    Says,
    /// Whole sentences about something that did not work: they say what to do next.
    Fails,
    /// Stands in a sentence.
    Part,
    /// A page, a heading, what stands before or behind something, or a message to the model.
    Frame,
}
use Kind::{Fails, Frame, Part, Says};

/// A word for people with its name.
struct Word {
    name: &'static str,
    kind: Kind,
    text: String,
}

/// What a topic gives: a text, or perhaps one.
trait Read {
    fn read(self) -> String;
}

impl Read for &str {
    fn read(self) -> String {
        self.to_owned()
    }
}

impl Read for String {
    fn read(self) -> String {
        self
    }
}

impl Read for Option<String> {
    fn read(self) -> String {
        self.expect("there is something to read")
    }
}

macro_rules! words {
    ($($kind:ident $topic:ident::$name:ident $(($($argument:expr),*))?,)*) => {
        vec![$(Word {
            name: concat!(stringify!($topic), "::", stringify!($name)),
            kind: $kind,
            text: $topic::$name $(($($argument),*))?.read(),
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
        Says chat::help("llamabot"),
        Says chat::modes("exobot", "`fast` or `reason`", "normal"),
        Frame chat::behind("Cut off."),
        Says chat::cut_off("40 s"),
        Fails chat::no_time("40 s"),
        Says chat::RESET,
        Fails chat::NOT_RESET,
        Says chat::STOPPED,
        Frame chat::STOPPED_BEHIND,
        Fails chat::LOOP,
        Part chat::A_MINUTE,
        Part chat::A_DAY,
        Fails chat::ceiling(1, chat::A_MINUTE, true, "40 s"),
        Fails chat::ceiling(800, chat::A_DAY, false, "3 h"),
        Fails chat::UNCOUNTED,
        Fails chat::EMPTY,
        Fails chat::ONLY_THOUGHT,
        Fails chat::USED_UP,
        Frame chat::CUT,
        Fails chat::ENDLESS,
        Fails chat::FILTERED,
        Fails chat::UNREACHABLE,
        Fails chat::rate_limited("40 s"),
        Fails chat::unavailable(Some(500)),
        Fails chat::unavailable(None),
        Fails chat::refused(418),
        Fails chat::MISCONFIGURED,
        Fails chat::TOO_LONG,
        Fails chat::NO_PICTURES,
        Fails chat::SLOW,
        Fails chat::BROKEN_OFF,
        Fails chat::NO_ANSWER,
        Frame chat::footer("groq/m", 42.0, 120, 150),
        Fails chat::not_seen("a.pdf", chat::ONLY_PICTURES),
        Fails chat::not_seen("a.png", chat::SEES_NOTHING),
        Part chat::ONLY_PICTURES,
        Part chat::SEES_NOTHING,
        Frame chat::picture("a.png"),
        Part environments::begins("acme/site", "setup.sh"),
        Part environments::not_there("acme/site", &environments::OTHER_STATE),
        Frame environments::there("acme/site", "setup.sh", "2 MB", true, 60),
        Frame environments::there("acme/site", "setup.sh", "2 MB", false, 0),
        Part environments::OTHER_STATE,
        Part environments::FAILED_BEFORE,
        Part environments::failed("setup.sh", "ended with status 1", &["no such file".to_owned()]),
        Frame environments::not_readable("Ask for it in a room that may."),
        Part environments::not_cloned(&["no such branch".to_owned()]),
        Part environments::too_large("2 GB"),
        Part environments::holds_secret("NPM_TOKEN"),
        Part environments::not_packed("took longer than 10 minutes"),
        Part environments::not_unpacked("tar ended with status 2"),
        Part environments::not_kept(cause),
        Frame environments::secrets_file(path, &"others can read it", "Give it mode 0600."),
        Frame environments::here("acme/site", "site", "2 MB"),
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
        Part rights::read(&"acme/site"),
        Part rights::ANY_USER,
        Part rights::ASKER,
        Part rights::ANOTHER,
        Frame rights::open("reach `x.org`", "K7QFB"),
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
        Part admin::ROOMS,
        Part admin::ROOMS_AT_TERMINAL,
        Part admin::DRAIN_OFF,
        Part admin::DRAIN_OFF_AT_TERMINAL,
        Frame admin::HELP,
        Fails admin::NOT_YOURS,
        Fails admin::NOT_YET,
        Fails admin::no_room("!r:example.org", admin::ROOMS),
        Fails admin::several_rooms("!r", admin::ROOMS_AT_TERMINAL),
        Says admin::nothing_runs("`!r:example.org`"),
        Says admin::stopped("`!r:example.org`"),
        Says admin::draining(0, admin::DRAIN_OFF),
        Says admin::draining(1, admin::DRAIN_OFF_AT_TERMINAL),
        Says admin::draining(3, admin::DRAIN_OFF),
        Says admin::NOT_DRAINING,
        Fails admin::NO_AMOUNT,
        Says admin::NO_ROOMS,
        Says admin::NO_TOKENS,
        Says admin::NO_GRANTS,
        Says admin::NO_LINES,
        Says commands::NOTHING_RUNS,
        Says commands::NO_JOBS,
        Frame commands::link("http://127.0.0.1:8090/dashboard#t.1", "24 hours"),
        Says commands::NO_TURN,
        Fails commands::NO_LINKS,
        Says commands::jobs_left("`npm run dev`", 1),
        Says commands::jobs_ended("`npm run dev`"),
        Fails commands::TOO_SLOW,
        Fails commands::unknown("x"),
        Frame commands::failed("the sandbox is paused"),
        Says commands::memory(&[]),
        Says commands::model("m", 1000, "as it says itself", true),
        Says commands::working("mend it", "0:10", 2, Some("run_command: ls")),
        Says commands::queued("mend it", 0, false),
        Says commands::queued("mend it", 2, false),
        Says commands::queued("mend it", 0, true),
        Part commands::HELD,
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
        Says exobot::waking(Some("20 s")),
        Says exobot::waking(None),
        Says exobot::WAKING_AGAIN,
        Fails exobot::SHORT_OF_MEMORY,
        Fails exobot::BUSY_MACHINE,
        Fails exobot::backing_off("20 s"),
        Fails exobot::degraded(exobot::DIED),
        Says exobot::NOT_STARTED,
        Says exobot::NO_MODEL,
        Says exobot::ILLEGAL,
        Says exobot::TOO_SLOW,
        Says exobot::DIED,
        Fails exobot::CROWDED,
        Fails exobot::ENDING,
        Fails exobot::WAITED,
        Fails github::not_granted("acme/site"),
        Part github::to_propose("acme/site", "agent/x", "0123456789abcdef", "Mend it"),
        Part github::to_comment("acme/site", 7),
        Part github::to_answer("acme/site", "agent/x", "0123456789abcdef", 7, 2),
        Frame github::answered(7, "acme/site", "0123456789abcdef", 1),
        Frame github::to_leave(2, "2 files +3 −0"),
        Frame github::verbatim("as it is"),
        Frame github::pull(7, "https://github.com/acme/site/pull/7", true, "+3 −0", "2 passed"),
        Frame github::body("It works.", "@ann:a.org", &[], &["x.org".to_owned()]),
        Frame localbot::HELP,
        Fails localbot::written_so("/lbs"),
        Frame localbot::STATUS,
        Frame localbot::MODELS,
        Frame localbot::ENDPOINTS,
        Part localbot::KEPT,
        Fails localbot::no_endpoints("/etc/matrix-agent"),
        Fails localbot::no_models("/etc/matrix-agent"),
        Frame localbot::mistake("localbot-models.json: models.x.context: it is no number"),
        Fails localbot::none_online(1),
        Fails localbot::none_online(3),
        Frame localbot::active("lab"),
        Frame localbot::model("Qwen3", Some("q3")),
        Frame localbot::context("131k", Some("full")),
        Frame localbot::speed("gen 62→58"),
        Frame localbot::sessions(4, "127k"),
        Frame localbot::speeds(Some((62.0, 58.0)), Some((393.0, 6.5))),
        Frame localbot::listed("q3", "Qwen3", true),
        Frame localbot::listed_facts(Some("131k"), Some("gen 62→58")),
        Fails localbot::unknown_model("xyz"),
        Fails localbot::several_models("q3", &["q3a".to_owned(), "q3b".to_owned()]),
        Frame localbot::switched("q3", "qwen3.gguf", Some("131k")),
        Frame localbot::switching("q3"),
        Frame localbot::no_server("llama-cpp", localbot::NO_CONNECTION),
        Frame localbot::not_switched(localbot::NO_ROOM, Some("qwen3.gguf")),
        Part localbot::not_served("`lab`"),
        Fails localbot::no_endpoint_for("q3", "vllm"),
        Part localbot::NO_ROOM,
        Part localbot::WAITED,
        Part localbot::only_its_own("`lab`"),
        Part localbot::SERVES_ANOTHER,
        Part localbot::STILL_LOADING,
        Part localbot::LOAD_FAILED,
        Part localbot::BAD_PATH,
        Part localbot::NO_SSH,
        Frame localbot::ssh_away("no route to host"),
        Part localbot::silent(3),
        Part localbot::ssh_not_started("no such file"),
        Part localbot::not_ready(minute, localbot::STILL_LOADING),
        Frame localbot::QUEUE,
        Frame localbot::queued("qwen3.gguf", 1, Some((2, 3)), true),
        Frame localbot::QUEUE_EMPTY,
        Frame localbot::slots(1, 4),
        Frame localbot::log("lab", "it begins"),
        Frame localbot::no_log("lab", localbot::NO_SSH),
        Frame localbot::endpoint(true, "lab", "llama-cpp", "http://10.0.0.2:8080"),
        Frame localbot::endpoint_models(&["Qwen3"]),
        Frame localbot::endpoint_idle(3),
        Frame localbot::endpoint_speed("gen 62→58"),
        Frame localbot::endpoint_fault(localbot::NO_CONNECTION),
        Frame localbot::online(2, 3),
        Frame localbot::measured("lab", "Qwen3", 61.7, Some(392.4), 847),
        Fails localbot::nothing_loaded("lab"),
        Frame localbot::not_measured("lab", localbot::NO_CONNECTION),
        Frame localbot::usage(&["llmlab"]),
        Frame localbot::NOT_YOURS,
        Frame localbot::reset("llmlab", "45k"),
        Fails localbot::busy("llmlab"),
        Frame localbot::no_such_bot("llmlab", "coder/x", "`coder/coder`"),
        Frame localbot::not_reset("The server's disk is full."),
        Frame localbot::no_answer_within(minute),
        Frame localbot::status(500, ""),
        Frame localbot::status(401, "no such key"),
        Frame localbot::WEB_PAGE,
        Frame localbot::NO_JSON,
        Frame localbot::TOO_MUCH,
        Frame localbot::NO_CONNECTION,
        Frame localbot::BAD_KEY,
        Says localbot::NO_FILES,
        Part localbot::NOBODY,
        Part localbot::NOT_THERE,
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
        Frame rooms::audit_head("12 abc"),
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
        Part sandboxes::WALL_OWN_KERNEL,
        Part sandboxes::WALL_SHARED_KERNEL,
        Part sandboxes::PODMANS_OWN_RUNTIME,
        Part sandboxes::runtime_missing("runsc"),
        Part sandboxes::runtime_broken(path, "it is a folder"),
        Part sandboxes::RUNTIME_MEND,
        Part sandboxes::RUNSC_ROOTLESS,
        Part sandboxes::RUNSC_ROOTLESS_MEND,
        Part sandboxes::runsc_closed(path),
        Part sandboxes::RUNSC_CLOSED_MEND,
        Part sandboxes::runsc_too_old(path, "runsc version 1"),
        Part sandboxes::runsc_fails("no ptrace"),
        Part sandboxes::RUNSC_MEND,
        Part sandboxes::other_runtime("crun", "runsc"),
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
        Frame talk::PERHAPS_AGAIN,
        Frame talk::HEARD,
        Frame talk::NO_FILES,
        Frame talk::REFUSED,
        Frame talk::STOPPED,
        Frame talk::REFUSED_MEND,
        Frame talk::prompt("halo", Some("Be kind.")),
        Says tasks::BEGUN,
        Says tasks::IN_THE_ROOM,
        Frame tasks::room("acme/site", 3, "Mend it"),
        Frame tasks::opened("acme/site", 3, "Mend it", "ann", "ben", "It is broken."),
        Frame tasks::order("acme/site", 3, "agent/gh-3", "Mend it", "ann", "It is broken."),
        Frame tasks::commented("ann", "How?"),
        Frame tasks::comment(3, "ann", "How?"),
        Frame tasks::commented_on(7, "ann", "How?"),
        Frame tasks::pull_comment("acme/site", 7, "agent/gh-3", "ann", "How?"),
        Frame tasks::ended(true, Some("https://github.com/acme/site/pull/7"), "It is done."),
        Frame tasks::ended(false, None, "What is the colour?"),
        Says tasks::failed_told(7, "test"),
        Frame tasks::failed("acme/site", 7, "agent/gh-3", "test", 1, 3),
        Fails tasks::enough(7, "test", 3),
        Says tasks::closed(7, "test"),
        Frame tasks::closed_for(7, "ann"),
        Frame tasks::reviewed_told(7, "ann"),
        Frame tasks::reviewed("acme/site", 7, "agent/gh-3", "ann", "No.", &[("a.rs:1".to_owned(), "Why?".to_owned())]),
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
        Part updates::THE_ONE_BEFORE,
        Part updates::version("0123456789abcdef", "Mend the login"),
        Says updates::built("`0123456789` (Mend the login)"),
        Says updates::done("`0123456789`", Some("Its units have changed, too.")),
        Says updates::kept("`0123456789`", "it does not build"),
        Says updates::back("`0123456789`", "it has not become ready within 30 s"),
        Fails updates::stuck("`0123456789`", "the old program cannot be put back"),
        Part updates::REPLACE,
        Part updates::to_replace("0123456789abcdef", "Mend the login", 2),
        Part updates::step(true),
    ]
}

/// Names of all that stands in the topics for people, as their sources have them.
fn written() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/strings");
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let topic = file.file_stem().unwrap().to_str().unwrap().to_owned();
        // What the model is told no person reads.
        if topic == "told" || topic == "tests" {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        assert!(!source.contains("crate::"), "{topic} knows of nobody, so it can tell no secret");
        // Whatever others can name counts: an item that this cannot read fails here, and is not passed over.
        for item in source.lines().filter_map(|line| line.strip_prefix("pub")) {
            let item = item.trim_start_matches(|letter| letter != ' ').trim_start();
            let item = item.strip_prefix("fn ").or_else(|| item.strip_prefix("const "));
            let item = item.unwrap_or_else(|| panic!("{topic} has something that is neither a text nor makes one"));
            let end = item.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap();
            names.insert(format!("{topic}::{}", &item[..end]));
        }
    }
    names
}

#[test]
fn all_words_are_read_here() {
    let read: BTreeSet<_> = words().iter().map(|word| word.name).chain(NO_WORDS).map(str::to_owned).collect();
    let unread: Vec<_> = written().symmetric_difference(&read).cloned().collect();
    assert!(unread.is_empty(), "each is in one of the two places, the topics and the list above: {unread:?}");
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
    for Word { name, kind, text } in words() {
        let heard = text.to_lowercase();
        for word in UNHEARD {
            assert!(!heard.contains(word), "{name} says {word:?}: {text}");
        }
        let shouts = text.ends_with('!') || text.contains("! ") || text.contains("!!");
        assert!(!shouts, "{name} shouts: {text}");
        assert!(kind == Frame || !text.contains("  "), "{name} has a gap: {text}");
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
    const NEXT: [&str; 18] = [
        "add ",
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
        "load one",
        "put it",
        "use /",
        "`!",
    ];
    for Word { name, text, .. } in words().into_iter().filter(|word| word.kind == Fails) {
        let heard = text.to_lowercase();
        assert!(NEXT.iter().any(|next| heard.contains(next)), "{name} leaves its reader alone: {text}");
    }
}
