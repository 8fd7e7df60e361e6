//! The manual pages.

use testkit::{privileged, run, said, stockade};

#[test]
fn every_command_has_a_page_that_names_its_flags() {
    privileged!(guard, {
        let directory = guard.directory().join("man1");
        let written = said(&guard, &["man", "--write-to", &directory.display().to_string()]);
        let help = said(&guard, &["help"]);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
        // A line with a leading space continues the line above.
        let names: Vec<&str> =
            listed.filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).collect();
        // All commands except `help`, and the page of stockade itself.
        assert_eq!(written.lines().count(), names.len(), "{written}");
        for name in names.iter().filter(|name| **name != "help") {
            let page = std::fs::read_to_string(directory.join(format!("stockade-{name}.1")))
                .expect("a page that was written");
            let flags = said(&guard, &[name, "--help"]);
            let flags = flags.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
            for flag in flags {
                let flag = flag.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
                let flag = flag.split(['=', '[']).next().unwrap_or(flag);
                assert!(page.contains(&flag.replace('-', "\\-")), "{flag} is not in the page of {name}");
            }
            assert_eq!(said(&guard, &["man", name]), page, "printed as written");
        }
        let page = std::fs::read_to_string(directory.join("stockade.1")).expect("a page that was written");
        for name in names.iter().filter(|name| **name != "help") {
            let page_name = format!("stockade-{name}(1)").replace('-', "\\-");
            assert!(page.contains(&page_name), "{page_name} is not in {page}");
        }
    });
}

#[test]
fn a_page_has_the_usual_sections() {
    let page = run("stockade", &["man", "exec"]).stdout;
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let expected = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "NOTES", "EXAMPLES", r#""SEE ALSO""#];
    assert_eq!(sections, expected);
    assert!(page.contains("\nstockade exec \\-\\-host\\-program /bin/busybox vm\\-1"), "{page}");
}

#[test]
fn an_unknown_page_and_an_unusable_directory_are_reported() {
    privileged!(guard, {
        let output = stockade(&guard, &["man", "rum"]);
        let line = "stockade: man: no command 'rum'; list the commands with `stockade help`\n";
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (1, "", line));
        let file = guard.file("file", "").display().to_string();
        let output = stockade(&guard, &["man", "--write-to", &file]);
        let line = format!("stockade: --write-to: '{file}' is not a directory; name a directory\n");
        assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", line));
    });
}
