//! The command line: the list of commands.

#[cfg(test)]
mod documents;

use clap::{ArgAction, Parser, Subcommand};

use crate::commands;
use crate::jail_file::Described;

/// Makes, watches and tears down jails for microVM monitors, and leaves no trace.
#[derive(Debug, Parser)]
#[command(name = "stockade", version = commands::version::VERSION, max_term_width = 100)]
#[command(after_help = "Example: stockade demo")]
pub(crate) struct Cli {
    /// No talk on stderr; failures are told all the same.
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,
    /// Tell on stderr what is done; -vv tells more.
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 901)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a VMM in a jail of its own, and remove the jail when it ends.
    Run(Described<crate::flags::run::RunArgs>),
    /// Make a jail, and leave it to be filled and started.
    Create(Described<commands::create::CreateArgs>),
    /// Place files, directories or devices into a jail; print where the jail finds them.
    Place(commands::place::PlaceArgs),
    /// Take out of a jail what was placed.
    Unplace(commands::unplace::UnplaceArgs),
    /// Start the VMM of a jail that was created, and return.
    Start(commands::start::StartArgs),
    /// Wait until VMMs have ended; print their exit codes.
    Wait(commands::wait::WaitArgs),
    /// Send VMMs a signal.
    Kill(commands::kill::KillArgs),
    /// Ask VMMs to end, and kill those that do not.
    Stop(commands::stop::StopArgs),
    /// Remove jails.
    Rm(commands::rm::RmArgs),
    /// Print what the VMM of a jail has written.
    Logs(commands::logs::LogsArgs),
    /// Run a program in a jail beside its VMM.
    Exec(commands::exec::ExecArgs),
    /// Run a shell in a jail beside its VMM.
    Shell(commands::shell::ShellArgs),
    /// Print what `run` would do, and do nothing.
    Plan(Described<commands::plan::PlanArgs>),
    /// List what is known of VMMs, or print one profile.
    Profiles(commands::profiles::ProfilesArgs),
    /// List the jails.
    Ps(commands::ps::PsArgs),
    /// Print everything that is known of a jail.
    Inspect(commands::inspect::InspectArgs),
    /// Print what happens to jails, as it happens.
    Events(commands::events::EventsArgs),
    /// Show what the jails use, as it changes.
    Top(commands::top::TopArgs),
    /// Remove what dead jails left.
    Gc(commands::gc::GcArgs),
    /// Make what starts jails faster on a host with many mounts.
    HostSetup(commands::host_setup::HostSetupArgs),
    /// Check how well a jail that runs holds its VMM.
    Audit(commands::audit::AuditArgs),
    /// Check this host: what breaks jails, what weakens them, and what mends it.
    Doctor(commands::doctor::DoctorArgs),
    /// Make a real jail, look around in it, run a tiny guest, and leave no trace.
    Demo(commands::demo::DemoArgs),
    /// Print the script by which a shell completes commands, flags, jails and profiles.
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page of a command, or write all pages.
    Man(commands::man::ManArgs),
    /// Print the version of stockade, and what it runs on.
    Version(commands::version::VersionArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_examples_of_help_are_command_lines() {
        let mut seen = 0;
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.lines().filter(|line| line.starts_with("  "));
            // What a shell puts in is not known here.
            for example in examples.filter(|line| !line.contains("$(") && !line.contains("<(")) {
                let line =
                    example.trim().trim_start_matches("sudo ").split(['>', '|']).next().unwrap_or_default();
                let words = line.trim().split(' ').map(|word| word.trim_matches('\''));
                Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{example}: {e}"));
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} examples");
    }

    #[test]
    fn no_word_of_another_tool_is_stockades_own() {
        crate::errors::other_tools::check_words(&Cli::command());
    }
}
