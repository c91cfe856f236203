//! How much memory cloud bots take.

use super::*;

/// How many bots are begun.
const BOTS: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: `cargo nextest run --test cloud_bots --run-ignored only --no-capture`"]
#[expect(clippy::print_stdout, reason = "whoever measures reads it")]
async fn twenty_bots_in_one_process() {
    let mut place = Place::new().await;
    place.answers_all();
    place.serve();
    let room = place.room(true).await;
    let empty = place.resident();
    for number in 0..BOTS {
        place.bot(&format!("bot{number}"), &room).await;
    }
    for number in 0..BOTS {
        place.served(&format!("bot{number}"));
        place.invite(&room, &format!("@bot{number}:localhost")).await;
    }
    let joined = place.resident();
    for number in 0..BOTS {
        place.is_answered(&room, &format!("bot{number}"), true).await;
    }
    let answered = place.resident();
    let each = |size: u64| (size - empty) / BOTS;
    println!("KiB: {empty} alone; each bot {} joined, {} when all have answered", each(joined), each(answered));
    assert!(each(answered) <= 8 << 10, "8 MiB each is the goal");
}

impl Place {
    /// The server's memory in KiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.as_ref().unwrap().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    }
}
