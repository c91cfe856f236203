//! What shells complete and the manual pages, where `install-service.sh` has put them: the program that serves writes them anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::run;
use crate::child;

/// The time of one command.
const QUICK: Duration = Duration::from_mins(1);
/// The files of shells, below the share directory beside the program's.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/matrix-agent"),
    ("zsh", "zsh/site-functions/_matrix-agent"),
    ("fish", "fish/vendor_completions.d/matrix-agent.fish"),
];
/// The folder of the manual pages there, and the page that shows that they were put there.
const PAGES: &str = "man/man1";
const PAGE: &str = "matrix-agent.1";

/// Has the program write them. What cannot be written is told in the log: the program serves without it.
pub(super) async fn renew(program: &Path) {
    let Some(share) = program.parent().and_then(Path::parent).map(|prefix| prefix.join("share")) else { return };
    for (shell, file) in SHELLS {
        let file = share.join(file);
        if file.exists() {
            note(&file, completions(program, shell, file.clone()).await);
        }
    }
    let pages = share.join(PAGES);
    if pages.join(PAGE).exists() {
        let mut command = child::command(program);
        command.arg("man").arg(&pages);
        note(&pages, run::output(command, QUICK).await.map(drop));
    }
}

async fn completions(program: &Path, shell: &str, file: PathBuf) -> Result<(), String> {
    let mut command = child::command(program);
    command.args(["completions", shell]);
    let script = run::output(command, QUICK).await?;
    let part = file.with_added_extension("part");
    let put = || {
        fs::write(&part, script)?;
        fs::set_permissions(&part, fs::metadata(&file)?.permissions())?;
        fs::rename(&part, &file)
    };
    put().map_err(|error: io::Error| error.to_string())
}

fn note(what: &Path, written: Result<(), String>) {
    if let Err(why) = written {
        tracing::warn!(what = %what.display(), %why, "the help of the version before stays");
    }
}
