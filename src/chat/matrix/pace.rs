//! The pace of sends: how often a progress message is edited, and how many sends an account may do.
//!
//! Pure: the time is passed in. [`Edits`] spreads the edits of one message over its turn. [`AccountPace`] learns what
//! the account may send, since homeservers limit accounts, not rooms: from refusals (429), and from how long sends
//! take, which tells how busy the homeserver is. Used by the scheduler alone.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two states of a progress message.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// The factor by which each interval is longer than the one before, so that an interval is 8 % of the time so far.
///
/// The first 98 intervals sum up to 0.5 s × (1.08⁹⁸ − 1) / 0.08 = 11,800 s, over three hours. One state comes every
/// 0.5 s in the beginning, every 5 s after a minute, every 48 s after ten.
const GROWTH: f64 = 1.08;
/// The states of a progress message: the first, which sends it, and 98 edits. Its end is one more edit, so that a
/// message has fewer than a hundred.
const STATES: u32 = 99;

/// The shortest pause after a refusal: Synapse delays a refusal by as much.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// Added to the pause that the homeserver asks for, since clocks run differently.
const MARGIN: Duration = Duration::from_millis(50);
/// The longest pause, whatever the homeserver asks for; trying too early does no harm.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// The longest pause that is guessed because the homeserver asks for less than it enforces.
const LONGEST_GUESS: Duration = Duration::from_secs(30);

/// The account's gap between progress edits while the homeserver refuses nothing: it serves others too, and saturates
/// at about a hundred events a second.
const SMALLEST_GAP: Duration = Duration::from_millis(50);
/// A homeserver asks for the time of one send; a gap longer by this factor leaves some sends for answers.
const SLACK: f64 = 1.25;
/// How long what a refusal has taught counts in full after the last refusal.
const REMEMBERED: Duration = Duration::from_mins(1);
/// After that the learned gap is halved once in each such time.
const HALVED: Duration = Duration::from_mins(5);
/// If sends have to wait at the homeserver, the gap between progress edits is this many times that wait, so that
/// progress takes a small part of what the homeserver can do.
const YIELD: u32 = 4;
/// The longest such gap.
const LONGEST_YIELD: Duration = Duration::from_secs(2);
/// The average wait is smoothed: each send changes it by one part in so many.
const SMOOTHED: u32 = 8;
/// Other sends delay progress by one gap each, but by at most this many gaps.
const MOST_DEBT: u32 = 3;

/// The most sends in flight while the homeserver refuses nothing.
pub(super) const IN_FLIGHT: usize = 8;

/// Spreads the states of a progress message over its turn.
#[derive(Debug)]
pub(super) struct Edits {
    /// States that were sent.
    sent: u32,
    /// When the next state may be sent.
    next: Instant,
}

impl Edits {
    /// Returns the pace of a message whose first state may be sent `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: 0, next: now }
    }

    /// Returns when the next state may be sent; `None` if only the end may still be.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.sent < STATES).then_some(self.next)
    }

    /// Returns whether no state was sent yet, so that the next one makes the message.
    pub(super) fn is_new(&self) -> bool {
        self.sent == 0
    }

    /// Notes that a state was sent and not refused.
    pub(super) fn sent(&mut self, now: Instant) {
        self.next = now + FIRST_INTERVAL.mul_f64(GROWTH.powi(self.sent.min(STATES) as i32));
        self.sent = self.sent.saturating_add(1);
    }
}

/// What an account may send, as learned from its homeserver.
#[derive(Debug)]
pub(super) struct AccountPace {
    /// Nothing is sent before this time.
    open: Instant,
    /// No progress is sent before this time.
    progress: Instant,
    /// The gap between progress edits that the last refusal has taught, and when that was.
    learned: Option<(Duration, Instant)>,
    /// Refusals since the last accepted send.
    in_a_row: u32,
    /// Sends that may be in flight: one after a refusal, then one more with each accepted send.
    window: usize,
    /// The time of the quickest recent send; `None` before the first.
    quickest: Option<Duration>,
    /// By how much sends take longer than the quickest, on average.
    wait: Duration,
}

impl AccountPace {
    /// Returns the pace of an account about which nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            open: now,
            progress: now,
            learned: None,
            in_a_row: 0,
            window: IN_FLIGHT,
            quickest: None,
            wait: Duration::ZERO,
        }
    }

    /// Returns when the next send may start.
    pub(super) fn open(&self) -> Instant {
        self.open
    }

    /// Returns when the next progress edit may start.
    pub(super) fn progress(&self) -> Instant {
        self.open.max(self.progress)
    }

    /// Returns how many sends may be in flight.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Notes that a send of any class starts.
    pub(super) fn begun(&mut self, now: Instant) {
        let gap = self.gap(now);
        self.progress = (self.progress.max(now) + gap).min(now + gap * MOST_DEBT);
    }

    /// Notes that a send ended after `took` and was not refused for its rate.
    pub(super) fn taken(&mut self, took: Duration) {
        self.in_a_row = 0;
        self.window = (self.window + 1).min(IN_FLIGHT);
        // The homeserver may have become slower for good, so the quickest time is raised a little with each send.
        let quickest = self.quickest.map_or(took, |known| took.min(known + known / SMOOTHED.pow(2)));
        self.quickest = Some(quickest);
        self.wait = (self.wait * (SMOOTHED - 1) + took.saturating_sub(quickest)) / SMOOTHED;
    }

    /// Notes that a send was refused for its rate; the homeserver asks to wait for `retry_after`.
    pub(super) fn limited(&mut self, now: Instant, retry_after: Duration) {
        let mut gap = self.gap(now);
        // Several sends in flight are refused together, which counts as one refusal.
        if now >= self.open {
            self.in_a_row = self.in_a_row.saturating_add(1);
            // A refusal just before the next send would be allowed asks for a short pause, although the gap was too
            // small.
            gap = gap.max(gap.mul_f64(SLACK).min(LONGEST_GUESS));
        }
        let guess = SHORTEST_PAUSE * 2_u32.saturating_pow(self.in_a_row.saturating_sub(1).min(16));
        let pause = retry_after.max(guess.min(LONGEST_GUESS)).min(LONGEST_PAUSE);
        self.learned = Some((gap.max(pause.mul_f64(SLACK)), now));
        self.open = self.open.max(now + pause + MARGIN);
        self.progress = self.progress.max(self.open);
        self.window = 1;
    }

    /// Returns the gap between progress edits at the time `now`.
    fn gap(&self, now: Instant) -> Duration {
        let smallest = SMALLEST_GAP.max(LONGEST_YIELD.min(self.wait * YIELD));
        let Some((gap, at)) = self.learned else { return smallest };
        let forgetting = now.saturating_duration_since(at + REMEMBERED);
        gap.mul_f64(0.5_f64.powf(forgetting.as_secs_f64() / HALVED.as_secs_f64())).max(smallest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn three_hours_of_constant_change_are_99_states() {
        let start = Instant::now();
        let (mut edits, mut at) = (Edits::new(start), Vec::new());
        for tick in 0..3 * 3600 * 10 {
            let now = start + millis(tick * 100);
            if edits.due().is_some_and(|due| due <= now) {
                edits.sent(now);
                at.push(tick * 100);
            }
        }
        assert!((90..=99).contains(&at.len()), "{}", at.len());
        assert_eq!(at[..3], [0, 500, 1100], "it begins at once, and quickly");
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 500));
        let longest = |until: u64| at.windows(2).filter(|pair| pair[1] < until).map(|pair| pair[1] - pair[0]).max();
        assert!(longest(60_000) <= Some(5_500) && longest(3_600_000) <= Some(290_000), "an hour is covered");
    }

    #[test]
    fn after_the_last_state_only_the_end_is_left() {
        let start = Instant::now();
        let mut edits = Edits::new(start);
        let mut states = 0;
        while let Some(due) = edits.due() {
            assert_eq!(edits.is_new(), states == 0);
            edits.sent(due);
            states += 1;
        }
        assert_eq!(states, STATES);
        assert!(edits.next > start + Duration::from_hours(3));
    }

    #[test]
    fn a_server_that_does_not_limit_is_hardly_waited_for() {
        let now = Instant::now();
        let mut account = AccountPace::new(now);
        assert!(account.open() <= now && account.progress() <= now && account.window() == IN_FLIGHT);
        (0..100).for_each(|_| account.begun(now));
        assert!(account.open() <= now && account.progress() <= now + millis(150));
    }

    #[test]
    fn a_refusal_stops_all_and_slows_progress_until_it_is_forgotten() {
        let mut now = Instant::now();
        let mut account = AccountPace::new(now);
        // Eight sends were in flight.
        (0..8).for_each(|_| account.limited(now, millis(4_900)));
        assert_eq!((account.open() - now, account.window()), (millis(4_950), 1));
        assert_eq!(account.progress(), account.open());

        now = account.open();
        account.begun(now);
        assert_eq!(account.progress() - now, millis(6_125), "what the server showed and a quarter");
        (0..3).for_each(|_| account.taken(millis(10)));
        assert_eq!(account.window(), 4);

        let mut gaps = [60, 360, 660, 7200].map(|seconds| {
            account.begun(now + Duration::from_secs(seconds));
            (account.progress() - now).as_millis() as u64 - seconds * 1000
        });
        gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
        assert!(gaps[0] > 5_900 && (2_900..3_200).contains(&gaps[1]) && (1_400..1_600).contains(&gaps[2]));
        assert_eq!(gaps[3], 50, "all is forgotten");
    }

    #[test]
    fn a_server_that_asks_for_too_little_is_left_alone_longer() {
        let mut now = Instant::now();
        let mut account = AccountPace::new(now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            account.limited(now, Duration::ZERO);
            pauses.push((account.open() - now).as_millis());
            now = account.open();
        }
        assert_eq!(pauses, [550, 1_050, 2_050, 4_050, 8_050, 16_050, 30_050, 30_050, 30_050]);
        account.taken(millis(10));
        account.limited(now, Duration::MAX);
        assert_eq!(account.open() - now, LONGEST_PAUSE + MARGIN);
    }

    #[test]
    fn a_server_that_has_much_to_do_is_spared() {
        let now = Instant::now();
        let mut account = AccountPace::new(now);
        let mut gap = |took: &mut dyn Iterator<Item = u64>| {
            took.for_each(|took| account.taken(millis(took)));
            account.gap(now).as_millis()
        };
        assert_eq!(gap(&mut [20, 15, 25, 30].into_iter().cycle().take(50)), 50, "such is life");
        let busy = gap(&mut std::iter::repeat_n(150, 30));
        assert!((450..600).contains(&busy), "four times the wait: {busy}");
        assert_eq!(gap(&mut std::iter::repeat_n(10_000, 30)), 2_000);
        assert_eq!(gap(&mut std::iter::repeat_n(20, 50)), 50, "it has time again");
        assert_eq!(gap(&mut std::iter::repeat_n(300, 500)), 50, "it has moved far away");
    }

    /// Synapse's default limit: a bucket of ten, refilled by one every five seconds.
    #[test]
    fn an_unmodified_synapse_seldom_refuses_and_is_used_well() {
        let start = Instant::now();
        let mut account = AccountPace::new(start);
        let (mut tokens, mut sent, mut refused) = (10.0, 0, 0);
        for tick in 0..3600 * 10 {
            let now = start + millis(tick * 100);
            tokens = f64::min(tokens + 0.02, 10.0);
            // There is always progress to show.
            if account.progress() > now {
                continue;
            }
            account.begun(now);
            if tokens >= 1.0 {
                tokens -= 1.0;
                sent += 1;
                account.taken(millis(10));
            } else {
                refused += 1;
                account.limited(now, Duration::from_secs_f64((1.0 - tokens) * 5.0));
            }
        }
        assert!(refused < 30, "{refused} of {sent}");
        assert!(sent > 500, "{sent} of 730");
    }

    proptest! {
        #[test]
        fn nothing_goes_before_the_server_allows(steps in prop::collection::vec((0..20_000_u64, 0..3_u8, 0..10_000_u64), 0..100)) {
            let mut now = Instant::now();
            let mut account = AccountPace::new(now);
            let mut forbidden = now;
            for (wait, what, retry_after) in steps {
                now += millis(wait);
                match what {
                    0 => account.begun(now),
                    1 => account.taken(millis(wait)),
                    _ => {
                        account.limited(now, millis(retry_after));
                        forbidden = forbidden.max(now + millis(retry_after.max(500)));
                    }
                }
                prop_assert!(account.open() >= forbidden && account.progress() >= account.open());
                prop_assert!(account.progress() <= now + LONGEST_PAUSE + LONGEST_PAUSE);
                prop_assert!((1..=IN_FLIGHT).contains(&account.window()));
            }
        }
    }
}
