//! The `stockade` command.

mod advice;
mod args;
mod attend;
mod audit;
mod cli;
mod completions;
mod create;
mod crew;
mod demo;
mod descriptors;
mod difference;
mod doctor;
#[cfg(test)]
mod documents;
mod events;
mod exec;
mod findings;
mod gc;
mod host_setup;
mod inspect;
mod jail_file;
mod jails;
mod kill;
mod logs;
mod man;
mod mistake;
mod output;
mod place;
mod placements;
mod plan;
mod prefix;
mod profiles;
mod progress;
mod ps;
mod ready;
mod rm;
mod run;
mod select;
mod service;
mod shell;
mod shown;
mod signals;
mod start;
mod stop;
mod talk;
mod terminal;
mod time;
mod top;
mod unplace;
mod version;
mod wait;
mod width;
mod wish;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use output::{Code, Failure};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // The probe reads its own words: it is what runs inside the jail of the demo.
    if words.get(1).is_some_and(|word| word == "probe") {
        return stockade_probe::run(&words[2..]);
    }
    let own_failure = code_of_own_failure(&words);
    match completions::answered(&words) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => (),
        Err(error) => return explain(&error, own_failure),
    }
    // A caller that ignores the end of its children has us ignore that of ours, and then nobody learns how
    // a VMM ended.
    let _ = stockade_syscalls::signals::heed_children();
    match Cli::try_parse_from(&words) {
        Ok(cli) => {
            talk::set_up(cli.quiet, cli.verbose);
            dispatch(cli).unwrap_or_else(|failure| failure.with_code(own_failure).tell())
        }
        Err(error) if error.kind() == ErrorKind::InvalidUtf8 => {
            mistake::no_text(words).with_code(own_failure).tell()
        }
        Err(error) => explain(&error, own_failure),
    }
}

/// With what the command ends if it fails itself: one that ends with the code of another program has a code for that.
fn code_of_own_failure(words: &[OsString]) -> Code {
    let command = words.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    match command.and_then(|word| word.to_str()) {
        Some("run" | "exec" | "shell") => Code::OwnFailure,
        _ => Code::Failed,
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Create(args) => create::create(&args),
        Command::Place(args) => place::place(&args),
        Command::Unplace(args) => unplace::unplace(&args),
        Command::Start(args) => start::start(&args),
        Command::Wait(args) => wait::wait(&args),
        Command::Kill(args) => kill::kill(&args),
        Command::Stop(args) => stop::stop(&args),
        Command::Rm(args) => rm::rm(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Profiles(args) => profiles::profiles(&args),
        Command::Top(args) => top::top(&args),
        Command::Ps(args) => ps::ps(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Events(args) => events::events(&args),
        Command::Exec(args) => exec::exec(&args),
        Command::Shell(args) => shell::shell(&args),
        Command::Gc(args) => gc::gc(&args),
        Command::HostSetup(args) => host_setup::host_setup(&args),
        Command::Audit(args) => audit::audit(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
        Command::Version(args) => version::version(&args),
    }
}

/// Help and version as they are; a mistake in one line.
fn explain(error: &clap::Error, own_failure: Code) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        return printed
            .map_or_else(|e| Failure::from(e).with_code(own_failure).tell(), |()| ExitCode::SUCCESS);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return own_failure.into();
    }
    Failure::new(mistake::line(error)).with_code(own_failure).tell()
}
