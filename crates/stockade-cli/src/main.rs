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
mod exec_args;
mod findings;
mod gc;
mod host;
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
mod run_args;
mod select;
mod service;
mod shell;
mod shown;
mod signal_names;
mod signals;
mod size;
mod start;
mod state;
mod stop;
mod talk;
mod terminal;
mod time;
mod together;
mod top;
mod unplace;
mod version;
mod wait;
mod width;
mod wish;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use output::Failure;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // The probe reads its own words: it is what runs inside the jail of the demo.
    if words.get(1).is_some_and(|word| word == "probe") {
        return stockade_probe::run(&words[2..]);
    }
    match completions::answered(&words, Cli::command) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => (),
        Err(error) => return mistake::explain(&error, &Cli::command(), words),
    }
    // A caller that ignores the end of its children has us ignore that of ours, and then nobody learns how
    // a VMM ended.
    let _ = stockade_syscalls::signals::heed_children();
    match Cli::try_parse_from(&words) {
        Ok(cli) => {
            talk::set_up(cli.quiet, cli.verbose);
            let own_failure = mistake::code_of_own_failure(&words);
            dispatch(cli.command).unwrap_or_else(|failure| failure.with_code(own_failure).tell())
        }
        Err(error) => mistake::explain(&error, &Cli::command(), words),
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
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
        Command::Man(args) => man::man(&args, Cli::command()),
        Command::Version(args) => version::version(&args),
    }
}
