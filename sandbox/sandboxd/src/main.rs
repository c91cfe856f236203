//! sandboxd: PID 1 of a room's container. Dials the server, runs commands for it, and carries the sandbox's connections
//! to it. One thread, no runtime; see `daemon` for the loop, `warden` for what watches over a command.

mod account;
mod capture;
mod commands;
mod control;
mod daemon;
mod environment;
mod files;
mod input;
mod launch;
mod live;
mod memory;
mod proxy;
mod spool;
mod sys;
mod tree;
mod wall;
mod warden;
mod words;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

/// Attempts, as a command, something that no command may do. Prints why it failed; nothing if it succeeded.
fn probe(attempt: impl FnOnce() -> io::Result<()>) -> ExitCode {
    if let Err(error) = attempt() {
        let _ = write!(io::stdout(), "{error}");
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    match arguments.split_first() {
        Some((applet, arguments)) if applet == "fs" => {
            let code = files::run(arguments, &mut io::stdin().lock(), &mut io::stdout().lock());
            return ExitCode::from(code as u8);
        }
        Some((applet, [])) if applet == "probe" => return probe(sys::enter_new_user_namespace),
        Some((applet, [what])) if applet == "probe" && what == "write" => {
            return probe(|| wall::try_to_write(launch::WORKSPACE));
        }
        _ => {}
    }
    let failure = if std::process::id() != 1 {
        "sandboxd is made to be PID 1 of a container".to_owned()
    } else if let Err(error) = daemon::run() {
        format!("sandboxd cannot go on: {error}")
    } else {
        return ExitCode::SUCCESS;
    };
    let _ = writeln!(io::stderr(), "{failure}");
    ExitCode::FAILURE
}
