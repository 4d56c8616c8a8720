//! Manual pages and the Debian package, judged by Debian's own tools. The package is that of `scripts/package-deb`, but for
//! its binary, which is the one that is tested.

use crate::support::node::{binary, checkout};
use crate::tidy::dead_links;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What stands on stdout of a tool that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run ./scripts/test"));
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{wrong}", output.status);
    said.into_owned()
}

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// All documents below a directory, named from there.
fn documents_below(root: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for name in names(&dir) {
            let path = dir.join(name);
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found
}

/// What units and settings say of where to read on is there.
fn documented(root: &Path) {
    let units = root.join("usr/lib/systemd/system");
    for unit in names(&units) {
        let text = std::fs::read_to_string(units.join(&unit)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Documentation=")).unwrap();
        for place in line.split(' ') {
            let file = match place.split_once(':').unwrap() {
                ("file", path) => path.trim_start_matches('/').to_owned(),
                ("man", page) => {
                    let (name, section) = page.trim_end_matches(')').split_once('(').unwrap();
                    format!("usr/share/man/man{section}/{name}.{section}.gz")
                }
                other => panic!("{unit}: {other:?}"),
            };
            assert!(root.join(&file).is_file(), "{unit}: {file} is missing");
        }
    }
}

/// The commands below `words`, by their help.
fn commands_below(words: &[String]) -> Vec<Vec<String>> {
    let help = run(Command::new(binary()).args(words).arg("--help"));
    let Some((_, list)) = help.split_once("Commands:\n") else { return vec![] };
    let name =
        |line: &str| line.strip_prefix("  ")?.split(' ').next().filter(|n| !n.is_empty()).map(str::to_owned);
    list.lines()
        .take_while(|l| !l.is_empty())
        .filter_map(name)
        .map(|name| [words, &[name]].concat())
        .collect()
}

#[test]
fn each_command_has_a_page_without_a_mistake() {
    let dir = TempDir::new().unwrap();
    run(Command::new(binary()).arg("man").arg(dir.path()));
    assert_eq!(names(dir.path()), ["man1", "man5"].map(str::to_owned).into());
    let (commands, files) = (dir.path().join("man1"), dir.path().join("man5"));
    let pages = names(&commands);
    let mut open = vec![vec![]];
    let mut expected = BTreeSet::new();
    while let Some(words) = open.pop() {
        expected.insert([&["minium".to_owned()], &words[..]].concat().join("-") + ".1");
        open.extend(commands_below(&words));
    }
    assert!(expected.len() > 60, "{expected:?}");
    assert_eq!(pages, expected);
    assert_eq!(names(&files), ["minium.toml.5".to_owned()].into());
    run(Command::new("mandoc")
        .args(["-T", "lint", "-W", "error"])
        .args(pages.iter().map(|p| commands.join(p)))
        .arg(files.join("minium.toml.5")));
    let mut mandoc = Command::new("mandoc");
    let struck = run(mandoc.args(["-T", "utf8", "-O", "width=200"]).arg(files.join("minium.toml.5")));
    // bold is a letter struck twice, for whoever has a printer
    let mut read = String::new();
    for letter in struck.chars() {
        if letter == '\u{8}' {
            read.pop();
        } else {
            read.push(letter);
        }
    }
    for words in
        ["[server.limits]", "message_bytes [256KiB]", "sinks.md", "A variable is MINIUM_ and the key"]
    {
        assert!(read.contains(words), "{words} in {read}");
    }
}

#[test]
fn the_package_has_what_belongs_into_it() {
    let dir = TempDir::new().unwrap();
    run(Command::new(checkout().join("scripts/package-deb")).args(["--debug", "--to"]).arg(dir.path()));
    let made = names(dir.path());
    assert_eq!(made.len(), 1, "{made:?}");
    let package = dir.path().join(made.first().unwrap());
    let (root, control) = (dir.path().join("root"), dir.path().join("control"));
    run(Command::new("dpkg-deb").arg("--extract").args([&package, &root]));
    run(Command::new("dpkg-deb").arg("--control").args([&package, &control]));

    let text =
        |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let said = text("control/control");
    for line in ["Package: minium\n", "Section: net\n", "libc6 (>= ", "init-system-helpers"] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_eq!(text("control/conffiles").trim(), "/etc/minium/minium.toml");
    for script in ["postinst", "prerm", "postrm"] {
        run(Command::new("sh").arg("-n").arg(control.join(script)));
    }
    for file in [
        "usr/bin/minium",
        "usr/lib/systemd/system/minium.socket",
        "usr/lib/systemd/system/minium-worker@.service",
        "usr/lib/systemd/system/minium-audit@.service",
        "usr/lib/sysusers.d/minium.conf",
        "usr/share/man/man1/minium-job-enqueue.1.gz",
        "usr/share/man/man5/minium.toml.5.gz",
        "usr/share/bash-completion/completions/minium",
        "usr/share/zsh/vendor-completions/_minium",
        "usr/share/fish/vendor_completions.d/minium.fish",
        "usr/share/minium/prometheus/minium.rules.yml",
        "usr/share/minium/grafana/minium.json",
        "usr/share/doc/minium/copyright",
        "usr/share/doc/minium/changelog.gz",
        "usr/share/doc/minium/docs/adr/0002-parents-without-locks.md",
        "usr/share/doc/minium/examples/openaddresses/openaddresses.py",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    let documents = documents_below(&root.join("usr/share/doc/minium"));
    assert!(documents.len() > 40, "{documents:?}");
    assert_eq!(dead_links(&root.join("usr/share/doc/minium"), &documents), Vec::<String>::new());
    documented(&root);
    let example = root.join("usr/share/doc/minium/examples/openaddresses/openaddresses.py");
    assert_eq!(std::fs::metadata(example).unwrap().permissions().mode() & 0o777, 0o755, "it is run as it is");
    // the settings that are installed hold, with the binary that is
    let installed = root.join("usr/bin/minium");
    let shown = run(Command::new(&installed)
        .args(["config", "show", "--config"])
        .arg(root.join("etc/minium/minium.toml")));
    assert!(shown.contains("sqlite:/var/lib/minium/minium.db"), "{shown}");
    // named by a unit, and a part of any system
    std::fs::create_dir(root.join("bin")).unwrap();
    std::fs::hard_link(&installed, root.join("bin/sh")).unwrap();
    for unit in names(&root.join("usr/lib/systemd/system")) {
        // an instance of those that want a name
        let unit = unit.replace('@', "@one");
        let mut verify = Command::new("systemd-analyze");
        let wrong = verify
            .args(["verify", "--man=no", "--recursive-errors=no", "--root"])
            .arg(&root)
            .arg(&unit)
            .output();
        let wrong = wrong.unwrap_or_else(|e| panic!("systemd-analyze: {e}: run ./scripts/test"));
        let words = String::from_utf8_lossy(&wrong.stderr);
        assert!(wrong.status.success() && words.trim().is_empty(), "{unit}: {words}");
    }
}
