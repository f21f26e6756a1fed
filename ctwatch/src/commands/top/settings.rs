//! What a file and the environment say where no option does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::super::WrongUsage;
use crate::{
    cli::{By, ChartsArg, ColoursArg, TopArgs},
    host::machine::files,
};

pub(super) const TEMPLATE: &str = "\
# Settings of `ctwatch top`: /etc/ctwatch/top.conf, and then ~/.config/ctwatch/top.conf, or what --config names.
# The environment comes before the file (CTWATCH_TOP_INTERVAL=2s), and options come before both.

# How often to read: 500ms, 1s, 2m
#interval = 1s

# How many talkers to keep of each list, up to 10000
#top = 20

# Which groupings of talkers there are, the first one first
#by = source,service,interface,process,flow

# Draw with ASCII alone: yes or no. Without it, TERM and the locale decide
#ascii = no

# Charts and bars: braille, blocks or ascii. Without it, TERM and the locale decide
#charts = blocks

# Select and scroll with the mouse: yes or no. The terminal then selects text with Shift
#mouse = no

# Colours: none, 8 or 16. Without it, TERM and NO_COLOR decide
#colours = 16
";

const NAMES: [&str; 7] = ["interval", "top", "by", "ascii", "charts", "mouse", "colours"];

/// Where files of settings are looked for.
pub(in crate::commands) fn paths(args: &TopArgs) -> Vec<PathBuf> {
    if let Some(path) = &args.config {
        return vec![path.clone()];
    }
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own =
        variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let own = own.map(|folder| folder.join("ctwatch/top.conf"));
    [PathBuf::from("/etc/ctwatch/top.conf")].into_iter().chain(own).collect()
}

pub(super) fn apply(mut args: TopArgs) -> Result<TopArgs> {
    let mut settings: Vec<(String, String, String)> = Vec::new();
    for path in paths(&args) {
        let of = path.display().to_string();
        match files::text(&path) {
            Ok(text) => {
                for (name, value) in read(&text).with_context(|| of.clone())? {
                    settings.push((name, value, of.clone()));
                }
            }
            // Only what was asked for must be there.
            Err(why) if args.config.is_some() => bail!("cannot read {of}: {why:#}"),
            Err(_) => {}
        }
    }
    for name in NAMES {
        let variable = format!("CTWATCH_TOP_{}", name.to_ascii_uppercase());
        if let Ok(value) = std::env::var(&variable) {
            settings.push((name.to_owned(), value, variable));
        }
    }
    let given = args.clone();
    for (name, value, of) in settings {
        let wrong = |why: String| WrongUsage(format!("{of}: {name} = {value:?}: {why}"));
        set(&mut args, &given, &name, &value).map_err(wrong)?;
    }
    Ok(args)
}

/// `name = value`, a line each.
fn read(text: &str) -> Result<Vec<(String, String)>> {
    let mut settings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        match pair {
            Some((name, value)) if NAMES.contains(&name) => {
                settings.push((name.to_owned(), value.to_owned()));
            }
            _ => bail!("line {number}: none of the settings {} = VALUE", NAMES.join(", ")),
        }
    }
    Ok(settings)
}

/// What an option of the command line says stays.
fn set(args: &mut TopArgs, given: &TopArgs, name: &str, value: &str) -> Result<(), String> {
    match name {
        "interval" if given.interval.is_none() && given.interval_word.is_none() => {
            args.interval = Some(crate::cli::interval(value)?);
        }
        "top" if given.top.is_none() => {
            let top = value.parse().ok().filter(|top| (1..=10_000).contains(top));
            args.top = Some(top.ok_or("a number from 1 to 10000")?);
        }
        "by" if given.by.is_empty() => {
            let each = value.split(',').map(|by| By::from_str(by.trim(), true));
            args.by = each.collect::<Result<_, _>>()?;
        }
        "ascii" if !given.ascii => {
            args.ascii = is_yes(value)?;
        }
        "mouse" if !given.mouse => args.mouse = is_yes(value)?,
        "charts" if given.charts.is_none() && !given.ascii => {
            args.charts = Some(ChartsArg::from_str(value, true)?);
        }
        "colours" if given.colours.is_none() => {
            args.colours = Some(ColoursArg::from_str(value, true)?);
        }
        _ => {}
    }
    Ok(())
}

fn is_yes(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("yes or no".to_owned()),
    }
}

/// Of those, what is there: for what may read nothing else.
pub(in crate::commands) fn there(args: &TopArgs) -> Vec<PathBuf> {
    paths(args).into_iter().filter(|path| Path::exists(path)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &str) -> TopArgs {
        let words = words.split(' ').map(Into::into).collect();
        let Some(Command::Top(args)) = Cli::of(words).unwrap().command else { panic!() };
        args
    }

    #[test]
    fn options_come_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("top.conf");
        let text = "# mine\ninterval = 2s\ntop = 50 # more\nby = flow,source\nascii = yes\ncolours = 8\n\
             charts = blocks\nmouse = true\n";
        std::fs::write(&path, text).unwrap();
        let words = format!("ctwatch top --config {} --top 7", path.display());
        let set = apply(args(&words)).unwrap();
        assert_eq!((set.interval(), set.top), (Duration::from_secs(2), Some(7)));
        assert_eq!((set.by, set.ascii), (vec![By::Flow, By::Source], true));
        assert_eq!((set.charts, set.mouse), (Some(ChartsArg::Blocks), true));
        assert_eq!(set.colours, Some(ColoursArg::Eight));
        for (wrong, why) in [
            ("nonsense", "line 1"),
            ("colour = 8", "line 1"),
            ("\ntop = 0", "1 to 10000"),
            ("ascii = maybe", "yes or no"),
            ("mouse = perhaps", "yes or no"),
            ("charts = lovely", "lovely"),
            ("by = nobody", "nobody"),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let error = format!("{:#}", apply(args(&words.replace(" --top 7", ""))).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(apply(args(&words)).is_err());
    }

    #[test]
    fn the_template_is_a_file_of_settings() {
        assert_eq!(read(TEMPLATE).unwrap(), []);
        let all = TEMPLATE.replace("\n#", "\n");
        let lines = all.lines().filter(|line| line.contains(" = ") && !line.starts_with('#'));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let settings = read(&text).unwrap();
        let names: Vec<&str> = settings.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, NAMES);
        let given = args("ctwatch top");
        for (name, value) in &settings {
            set(&mut given.clone(), &given, name, value).unwrap();
        }
    }
}
