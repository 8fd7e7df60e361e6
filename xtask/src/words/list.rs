//! Words that are not written, and those to write instead.

/// Phrases that are not written. Alternatives stand between bars; `..` is for at most three words.
pub(crate) struct Rule {
    pub(crate) phrases: &'static [&'static str],
    /// Words before the phrase with which it is allowed.
    pub(crate) unless_after: &'static [&'static str],
    /// Words after the phrase with which it is allowed.
    pub(crate) unless_before: &'static [&'static str],
    /// Phrases elsewhere in the text with which it is allowed, as the short form of a term after the full one.
    pub(crate) unless_beside: &'static [&'static str],
    /// The words to write instead.
    pub(crate) instead: &'static str,
}

const fn rule(phrases: &'static [&'static str], instead: &'static str) -> Rule {
    Rule { phrases, unless_after: &[], unless_before: &[], unless_beside: &[], instead }
}

impl Rule {
    const fn unless_after(self, words: &'static [&'static str]) -> Self {
        Self { unless_after: words, ..self }
    }

    const fn unless_beside(self, phrases: &'static [&'static str]) -> Self {
        Self { unless_beside: phrases, ..self }
    }

    const fn unless_before(self, words: &'static [&'static str]) -> Self {
        Self { unless_before: words, ..self }
    }
}

pub(crate) const RULES: &[Rule] = &[
    rule(&["tell|tells|told|telling apart"], "distinguish"),
    rule(&["told as"], "reported as"),
    rule(&["tell|tells|told|telling|says", "has|have to say"], "print, report, return, show or log"),
    rule(&["whoever|whomever|somebody|nobody"], "the process, the caller, another process, no process"),
    rule(&["jail|jails|vmm|vmms that run|runs"], "running jails")
        .unless_before(&["as", "in", "on", "under", "with"]),
    rule(&["jail|jails|vmm|vmms that is|are there"], "existing jails"),
    rule(&["is|are|was|were|be|being|been gone|over", "goes|go away", "ended"], "exited or removed"),
    rule(&["it|this|that|which|jail|vmm|process goes"], "exits, is removed").unless_before(&[
        "to", "on", "through", "well", "back", "wrong", "into", "in", "there", "here", "further", "down",
        "up",
    ]),
    rule(&["made anew"], "recreated"),
    rule(&["made"], "created").unless_before(&[
        "of",
        "to",
        "up",
        "executable",
        "readable",
        "writable",
        "available",
    ]),
    rule(&["stands|stand|standing by itself|themselves", "let go"], "persists, is detached"),
    rule(&["jail|jails|vmm|vmms|it|they is|are|be left"], "persists, is detached")
        .unless_before(&["behind", "in", "of", "out", "over", "with"]),
    rule(&["the original"], "Firecracker's jailer")
        .unless_before(&["error", "file", "mode", "name", "order", "owner", "path", "value"]),
    rule(&["words"], "arguments").unless_after(&["bit", "key", "other"]),
    rule(&["that a value is of"], "the flag"),
    rule(&["folder|folders"], "directory"),
    // The verb is not meant: "link it statically".
    rule(
        &[
            "a|any|another|each|every|its|no|of|one|own|that|the|their|these|this|those|through link|links",
            "follow|follows|followed|planted|resolve|resolves|resolved links",
            "link|links is|are|of any",
        ],
        "symbolic link, hard link or socket",
    )
    .unless_before(&["against", "dynamically", "it", "no", "none", "nothing", "only", "statically"])
    .unless_beside(&["hard link", "symbolic link"]),
    rule(&["descriptor|descriptors"], "file descriptor").unless_after(&["file"]),
    rule(&["version 1|2", "versions 1 and 2"], "cgroup v1, cgroup v2"),
    rule(
        &["hand|hands|handed|handing .. down"],
        "enable controllers for child cgroups (cgroup.subtree_control)",
    ),
    rule(&["born"], "created in a cgroup (CLONE_INTO_CGROUP)"),
    rule(&["loader|loaders"], "dynamic loader").unless_after(&["boot"]).unless_beside(&["dynamic loader"]),
    rule(&["closure|closures"], "shared libraries (and a function or callback of Rust)"),
    rule(&["leash|leashes"], "tracking cgroup"),
    rule(&["skeleton|skeletons"], "template mount namespace"),
    rule(&["visitor|visitor's|visitors|visit|visits|visited|visiting"], "exec process, exec"),
    rule(&["keeper|keeper's|keepers"], "owning process"),
    rule(
        &[
            "jail's|jails'|a|the|its|their|this|no|own|each|every place",
            "all|free|in|many|of|other|the|their|these|those|two places",
        ],
        "the jail's entry in the state directory; position, path; \"place\" is a verb",
    ),
    rule(&["parting|partings"], "tombstone"),
    rule(&["presence|presences"], "subscriber lock").unless_before(&["of"]),
    rule(&["random word|words"], "nonce"),
    rule(&["mend|mends|mended|mending"], "fix"),
    rule(&["talk|talks"], "messages, progress output").unless_before(&["to", "with"]),
    rule(&["all the same", "meanwhile", "by then", "of itself"], "leave it out"),
    rule(&["we|us|our|ours"], "stockade, the process, the caller"),
];

/// Text in which a phrase of [`RULES`] is right.
pub(crate) struct Exception {
    /// Beginning of the file's path; empty for all files.
    pub(crate) file: &'static str,
    /// The text, with single spaces, in whatever case; empty for the whole file.
    pub(crate) text: &'static str,
    pub(crate) reason: &'static str,
}

pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception { file: "xtask/src/words/", text: "words", reason: "this check is about words" },
    Exception { file: "docs/decisions/0027-words.md", text: "", reason: "the decision lists the words" },
    Exception { file: "docs/decisions/README.md", text: "words", reason: "the title of decision 27" },
    Exception { file: "", text: "decisions are made", reason: "a decision is not created" },
    Exception {
        file: "crates/jailer/src/",
        text: "version 2",
        reason: "the drop-in's messages are Firecracker's",
    },
    Exception { file: "CHANGELOG.md", text: "wrap their lines at words", reason: "words of a text" },
];
