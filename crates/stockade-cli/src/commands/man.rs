//! `stockade man`: the manual pages, generated from the parser, as the help is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::terminal::output::{Failure, in_flag, print};
use stockade::spec::{SpecError, cannot, not_expanded};

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade man run > stockade-run.1
  stockade man --write-to /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Command whose page to print (default: stockade itself).
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Write all pages into this directory, which is created if it is missing.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    write_to: Option<PathBuf>,
}

pub(crate) fn man(args: &ManArgs, cli: Command) -> Result<ExitCode, Failure> {
    // Otherwise every page would list `help`, and `help` would have a page.
    let mut cli = cli.disable_help_subcommand(true);
    cli.build();
    match (&args.write_to, &args.command) {
        (Some(directory), _) => write(&cli, directory)?,
        (None, Some(name)) => print(&page(named(&cli, name)?)?.1)?,
        (None, None) => print(&page(&cli)?.1)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn named<'a>(cli: &'a Command, name: &str) -> Result<&'a Command, Failure> {
    let no_such =
        || Failure::new(format!("man: no command '{name}'; list the commands with `stockade help`"));
    cli.find_subcommand(name).ok_or_else(no_such)
}

/// Writes the pages, and prints their paths.
fn write(cli: &Command, directory: &Path) -> Result<(), Failure> {
    let refused =
        |path: &Path, cause: std::io::Error| Failure::flag("write-to", cannot("write", path, &cause));
    if let Some(text) = not_expanded(directory) {
        return Err(Failure::flag("write-to", text));
    }
    if directory.exists() && !directory.is_dir() {
        return Err(in_flag("write-to")(SpecError::NotADirectory(directory.to_owned())));
    }
    std::fs::create_dir_all(directory).map_err(|cause| refused(directory, cause))?;
    for command in std::iter::once(cli).chain(cli.get_subcommands()) {
        let (name, text) = page(command)?;
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|cause| refused(&path, cause))?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// A page: the name of its file, and its text.
fn page(command: &Command) -> Result<(String, String), Failure> {
    // clap_mangen's own synopsis has neither the required flags nor the names of values.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone().override_usage(usage).subcommand_help_heading("COMMANDS"))
        // An empty date would be omitted, and the next field would take its position.
        .date(" ")
        .manual("stockade")
        .source(format!("stockade {}", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::new();
    if let Some(help) = command.get_after_help() {
        after_options(&mut more, &help.to_string());
    }
    more.control("SH", ["SEE ALSO"]);
    let pages =
        ["stockade(1)", "stockade-jailer(1)"].into_iter().filter(|page| *page != format!("{name}(1)"));
    more.text([roman(pages.collect::<Vec<_>>().join(", "))]);
    more.to_writer(&mut text)?;
    Ok((man.get_filename(), String::from_utf8_lossy(&text).into_owned()))
}

/// Renders the help after the options: notes, and examples without filling.
fn after_options(roff: &mut Roff, help: &str) {
    for paragraph in help.split("\n\n") {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        if first.starts_with("Example") {
            roff.control("SH", ["EXAMPLES"]);
            roff.control("EX", []);
            rest.lines().for_each(|line| _ = roff.text([roman(line.trim())]));
            roff.control("EE", []);
        } else {
            roff.control("SH", ["NOTES"]);
            roff.text([roman(paragraph.replace('\n', " "))]);
        }
    }
}
