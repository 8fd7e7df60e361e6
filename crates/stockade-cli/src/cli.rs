//! The list of subcommands.

#[cfg(test)]
mod documents;

use clap::{ArgAction, Parser, Subcommand};

use crate::commands;
use crate::jail_file::Described;

/// Create, watch and remove jails for microVM monitors (VMMs) such as Firecracker.
#[derive(Debug, Parser)]
#[command(name = "stockade", version = commands::version::VERSION, max_term_width = 100)]
#[command(after_help = "Example: stockade demo")]
pub(crate) struct Cli {
    /// Print errors only.
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,
    /// Log each step to stderr; -vv for more detail.
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 901)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a VMM in a new jail, and remove the jail when the VMM exits.
    Run(Described<crate::flags::run::RunArgs>),
    /// Create a jail without starting its VMM.
    Create(Described<commands::create::CreateArgs>),
    /// Place files, directories or devices into a jail; print their paths in the jail.
    Place(commands::place::PlaceArgs),
    /// Take placed files, directories or devices out of a jail.
    Unplace(commands::unplace::UnplaceArgs),
    /// Start the VMM of a created jail, and return.
    Start(commands::start::StartArgs),
    /// Wait until VMMs exit; print their exit codes.
    Wait(commands::wait::WaitArgs),
    /// Send a signal to VMMs.
    Kill(commands::kill::KillArgs),
    /// Stop VMMs: send SIGTERM, then SIGKILL after a grace period.
    Stop(commands::stop::StopArgs),
    /// Remove jails.
    Rm(commands::rm::RmArgs),
    /// Print the output of a jail's VMM.
    Logs(commands::logs::LogsArgs),
    /// Run a program in a running jail.
    Exec(commands::exec::ExecArgs),
    /// Run a shell in a running jail.
    Shell(commands::shell::ShellArgs),
    /// Print the steps that `run` would take, and change nothing.
    Plan(Described<commands::plan::PlanArgs>),
    /// List the VMM profiles, or print one.
    Profiles(commands::profiles::ProfilesArgs),
    /// List the jails.
    Ps(commands::ps::PsArgs),
    /// Print all facts about jails.
    Inspect(commands::inspect::InspectArgs),
    /// Print changes of jails as they happen.
    Events(commands::events::EventsArgs),
    /// Show the resource use of jails, live.
    Top(commands::top::TopArgs),
    /// Remove abandoned jails, which a crash left behind.
    Gc(commands::gc::GcArgs),
    /// Create the template mount namespace, which speeds up starts on hosts with many mounts.
    HostSetup(commands::host_setup::HostSetupArgs),
    /// Check how well a running jail confines its VMM.
    Audit(commands::audit::AuditArgs),
    /// Check this host for problems that break or weaken jails, and print the fixes.
    Doctor(commands::doctor::DoctorArgs),
    /// Create a jail, examine it from inside, run a tiny guest, and remove everything.
    Demo(commands::demo::DemoArgs),
    /// Print the script that completes commands, flags, jails and profiles in a shell.
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page of a command, or write all pages.
    Man(commands::man::ManArgs),
    /// Print the version of stockade, the architecture and the kernel release.
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
            // The output of a substituted command is not known here.
            for example in examples.filter(|line| !line.contains("$(") && !line.contains("<(")) {
                let line =
                    example.trim().trim_start_matches("sudo ").split(['>', '|']).next().unwrap_or_default();
                let arguments = line.trim().split(' ').map(|argument| argument.trim_matches('\''));
                Cli::try_parse_from(arguments).unwrap_or_else(|e| panic!("{example}: {e}"));
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
