//! `matrix-agent man`: the manual pages of this program.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Outcome};

const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// Write the manual pages into a folder, one for each command: `matrix-agent man /usr/local/share/man/man1`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder, which is made if it is missing
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let folder = &args.folder;
    write(folder).with_context(|| format!("The manual pages cannot be written to {}", folder.display()))?;
    writeln!(io::stdout(), "The manual pages are in {}.", folder.display())?;
    Ok(Outcome::Good)
}

/// Writes the pages, which everybody may read whatever the umask is.
fn write(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let mut commands = vec![Cli::command().disable_help_subcommand(true)];
    while let Some(mut command) = commands.pop() {
        command.build();
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let page = folder.join(format!("{name}.1"));
        let mut text = Vec::new();
        // Beside a command's name, twice, there is no room for words in the header's middle, and what is empty is left out.
        let source = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
        Man::new(command.clone()).date(" ").source(source).manual(" ").render(&mut text)?;
        fs::write(&page, text)?;
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
        commands.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
    }
    Ok(())
}
