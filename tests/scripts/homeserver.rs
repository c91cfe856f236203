//! What becomes of the homeserver's volume in a backup and a restore. No homeserver runs for that: its volume and Podman suffice.

use std::{fs, path::Path};

use super::{Place, SETTINGS, STATE};

/// A place whose homeserver has a volume; with it go all volumes of its name.
struct Home {
    place: Place,
}

const ALL: &str = "/usr/local/bin";

impl Home {
    fn new(name: &str) -> Self {
        let mut place = Place::new();
        place.homeserver = format!("matrix-agent-test-{name}-{}", std::process::id());
        place.settings(SETTINGS);
        Self { place }
    }

    fn podman(&self, arguments: &[&str]) -> std::process::Output {
        self.place.command(Path::new("podman"), ALL).args(arguments).output().unwrap()
    }

    /// Writes files into the volume, which is made if there is none; without a text they go.
    fn write(&self, files: &[(&str, &str)]) {
        let (folder, packed) = (self.place.path("content"), self.place.path("content.tar"));
        let _ = fs::remove_dir_all(&folder);
        for (name, text) in files {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), text).unwrap();
        }
        let tar = self
            .place
            .command(Path::new("tar"), ALL)
            .arg("-cf")
            .args([&packed, Path::new("-C")])
            .arg(&folder)
            .arg(".")
            .output();
        assert!(tar.unwrap().status.success());
        self.podman(&["volume", "create", &self.place.homeserver]);
        let written = self.podman(&["volume", "import", &self.place.homeserver, packed.to_str().unwrap()]);
        assert!(written.status.success(), "{written:?}");
    }

    /// The files of a volume with what is in them; nothing where there is no such volume.
    fn read(&self, name: &str) -> Vec<(String, String)> {
        let (packed, folder) = (self.place.path("read.tar"), self.place.path("read"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        if !self.podman(&["volume", "export", name, "--output", packed.to_str().unwrap()]).status.success() {
            return Vec::new();
        }
        let tar =
            self.place.command(Path::new("tar"), ALL).arg("-xf").args([&packed, Path::new("-C")]).arg(&folder).output();
        assert!(tar.unwrap().status.success());
        let found =
            self.place.command(Path::new("find"), ALL).arg(&folder).args(["-type", "f", "-printf", "%P\n"]).output();
        let mut names: Vec<_> = String::from_utf8(found.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), fs::read_to_string(folder.join(&name)).unwrap())).collect()
    }

    fn homeserver(&self) -> Vec<(String, String)> {
        self.read(&self.place.homeserver)
    }

    fn volumes(&self) -> Vec<String> {
        let listed = self.podman(&["volume", "ls", "--quiet", "--filter", &format!("name={}", self.place.homeserver)]);
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn remove(&self) {
        for volume in self.volumes() {
            self.podman(&["volume", "rm", "--force", &volume]);
        }
    }

    /// Kills the script when the so-manieth volume is emptied into another one, behind all of its files but for the last ones.
    fn killing(&self, at: usize, left: usize) -> String {
        let count = self.place.path("count");
        fs::write(&count, "").unwrap();
        let count = count.display();
        let text = format!(
            "[ \"$1\" = -t ] || exec /usr/bin/mv \"$@\"\n\
            printf x >>{count}\n\
            [ $(wc -c <{count}) -eq {at} ] || exec /usr/bin/mv \"$@\"\n\
            to=$2 && shift 3\n\
            for one; do [ $# -gt {left} ] && /usr/bin/mv -t \"$to\" -- \"$1\" && shift; done\n\
            at=$PPID\n\
            while [ \"$at\" -gt 1 ]; do\n\
                case $(tr '\\0' ' ' </proc/$at/cmdline) in *clone/scripts/restore.sh*) script=$at ;; esac\n\
                at=$(sed -n 's/^PPid:[^0-9]*//p' /proc/$at/status)\n\
            done\n\
            kill -KILL \"$script\"; exit 1"
        );
        self.place.programs("mv", &text)
    }

    fn unpacks_nothing(&self) -> String {
        self.place.programs("tar", "case $* in *-xz*) exit 2;; esac; exec /usr/bin/tar \"$@\"")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.remove();
    }
}

fn files(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const BACKED_UP: &[(&str, &str)] =
    &[("homeserver.db", "backed up"), ("homeserver.yaml", "server"), ("media/one", "picture")];
const OLD: &[(&str, &str)] = &[
    ("homeserver.db", "old"),
    ("homeserver.db-wal", "old log"),
    ("homeserver.yaml", "old server"),
    ("key", "old key"),
];

#[test]
fn a_homeserver_comes_back_and_the_old_one_after_a_kill_also_where_it_was_started_meanwhile() {
    let home = Home::new("back");
    let place = &home.place;
    home.write(BACKED_UP);
    let backup = place.backed_up();
    let (state, named) = (place.path(STATE), backup.to_str().unwrap());
    assert!(backup.join("homeserver.tar.gz").exists());
    for (at, left) in [(1, 3), (1, 1), (1, 0), (2, 1), (2, 0)] {
        home.remove();
        home.write(OLD);
        assert!(place.killed("restore.sh", &[named, "--force"], &home.killing(at, left)), "{at}");
        assert!(state.join("restoring").exists(), "{at}");
        // The machine starts it.
        if at > 1 || left == 0 {
            home.write(&[("homeserver.db-wal", "another's log"), ("homeserver.db-shm", "another's")]);
        }
        let half = home.homeserver();
        let runs = place.programs(
            "podman",
            "case $* in container*inspect*State*) echo running;; *) PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin exec podman \"$@\";; esac",
        );
        let refused = place.run_with("restore.sh", &[named], &runs);
        assert!(refused.code == 1 && refused.err.contains("the homeserver runs"), "{at}: {refused:?}");
        assert!(state.join("restoring").exists(), "{at}");
        assert_eq!(home.homeserver(), half, "{at}, {left}");
        let back = place.run_with("restore.sh", &[named], &home.unpacks_nothing());
        assert!(back.code == 1 && back.err.contains("the backup cannot be unpacked"), "{at}: {back:?}");
        assert_eq!(home.homeserver(), files(OLD), "{at}, {left}");
        assert_eq!(home.volumes(), std::slice::from_ref(&place.homeserver), "{at}, {left}");
    }
    let refused = place.run("restore.sh", &[named]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let done = place.run("restore.sh", &[named, "--force"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(home.homeserver(), files(BACKED_UP));
    let aside = home.volumes().into_iter().find(|name| name.contains("-before-restore-")).unwrap();
    assert_eq!(home.read(&aside), files(OLD));
    assert_eq!(home.volumes().len(), 2, "{:?}", home.volumes());
}

#[test]
fn a_homeserver_that_was_made_where_a_restore_was_killed_is_not_removed() {
    let home = Home::new("made");
    let place = &home.place;
    home.write(BACKED_UP);
    let backup = place.backed_up();
    let named = backup.to_str().unwrap();
    home.remove();
    for left in [1, 0] {
        assert!(place.killed("restore.sh", &[named, "--force"], &home.killing(1, left)));
        // What the restore alone has made goes.
        let back = place.run_with("restore.sh", &[named], &home.unpacks_nothing());
        assert!(back.code == 1 && back.err.contains("the backup cannot be unpacked"), "{back:?}");
        assert!(home.volumes().is_empty(), "{:?}", home.volumes());
    }
    assert!(place.killed("restore.sh", &[named, "--force"], &home.killing(1, 0)));
    home.write(&[("homeserver.log", "of another")]);
    let half = home.homeserver();
    let refused = place.run("restore.sh", &[named, "--force"]);
    assert!(refused.code == 1 && refused.err.contains("podman volume rm"), "{refused:?}");
    assert_eq!(home.homeserver(), half);
    assert!(place.path(STATE).join("restoring").exists());
    home.podman(&["volume", "rm", &place.homeserver]);
    let done = place.run("restore.sh", &[named]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(home.homeserver(), files(BACKED_UP));
}
