//! Manual pages and the Debian package, judged by Debian's own tools. The package is that of `scripts/package-deb`, but for
//! its binary, which is the one that is tested.

use crate::support::node::{binary, checkout};
use std::collections::BTreeSet;
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
    let pages = names(dir.path());
    let mut open = vec![vec![]];
    let mut expected = BTreeSet::new();
    while let Some(words) = open.pop() {
        expected.insert([&["minium".to_owned()], &words[..]].concat().join("-") + ".1");
        open.extend(commands_below(&words));
    }
    assert!(expected.len() > 60, "{expected:?}");
    assert_eq!(pages, expected);
    run(Command::new("mandoc")
        .args(["-T", "lint", "-W", "error"])
        .args(pages.iter().map(|p| dir.path().join(p))));
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
        "usr/share/bash-completion/completions/minium",
        "usr/share/zsh/vendor-completions/_minium",
        "usr/share/fish/vendor_completions.d/minium.fish",
        "usr/share/minium/prometheus/minium.rules.yml",
        "usr/share/minium/grafana/minium.json",
        "usr/share/doc/minium/copyright",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
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
