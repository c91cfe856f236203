//! Parses what the kernel says of a process, in the formats of proc(5).

/// The kernel's names of capabilities, in the order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The fields of `/proc/PID/status` that are shown.
#[derive(Default)]
pub(super) struct Status {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) capabilities: Vec<String>,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: bool,
}

impl Status {
    pub(super) fn parse(text: &str) -> Self {
        let mut status = Self { uid: u32::MAX, gid: u32::MAX, ..Self::default() };
        let mut bits = 0;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let first = value.split_whitespace().next().unwrap_or_default();
            match key {
                "Uid" => status.uid = first.parse().unwrap_or(u32::MAX),
                "Gid" => status.gid = first.parse().unwrap_or(u32::MAX),
                // Effective ones, and permitted ones, which it could make effective.
                "CapEff" | "CapPrm" => bits |= u64::from_str_radix(first, 16).unwrap_or_default(),
                "NoNewPrivs" => status.no_new_privileges = first == "1",
                "Seccomp" => status.seccomp = first != "0",
                _ => {}
            }
        }
        status.capabilities = capabilities(bits);
        status
    }
}

fn capabilities(bits: u64) -> Vec<String> {
    (0..u64::BITS as usize)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| CAPABILITIES.get(bit).map_or_else(|| format!("capability {bit}"), |name| (*name).to_owned()))
        .collect()
}

/// Parses `/proc/PID/net/dev`: two header lines, then `name: counters`.
pub(super) fn interfaces(text: &str) -> Vec<String> {
    text.lines().skip(2).filter_map(|line| line.split_once(':').map(|(name, _)| name.trim().to_owned())).collect()
}

/// Parses `/proc/PID/uid_map`: lines of first id inside, first id outside, how many.
pub(super) fn id_map(text: &str) -> Vec<[u64; 3]> {
    let line = |line: &str| -> Option<[u64; 3]> {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsandboxd\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n\
        CapInh:\t0000000000000000\nCapPrm:\t00000000000400eb\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn rights_are_read_from_the_kernels_words() {
        let status = Status::parse(STATUS);
        assert_eq!((status.uid, status.gid, status.no_new_privileges, status.seccomp), (1000, 1000, true, true));
        let expected = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_CHROOT"];
        assert_eq!(status.capabilities, expected);
        assert_eq!(Status::parse("").uid, u32::MAX, "what is not said is nobody");
    }

    #[test]
    fn interfaces_and_maps_are_read() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo:       0\n  eth0: 12 3\n";
        assert_eq!(interfaces(devices), ["lo", "eth0"]);
        assert_eq!(id_map("         0 2147614719      65536\n"), [[0, 2_147_614_719, 65_536]]);
    }
}
