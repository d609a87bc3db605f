//! Flags that set what a broker reads, made from the table of settings, for every command that wants a configuration.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use floodmark_broker::config::{BrokerConfig, ConfigError, SETTINGS, Setting, Sources};

/// What the command line says about settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettingArgs {
    config: Option<PathBuf>,
    /// Key, value, flag.
    flags: Vec<(String, String, String)>,
}

impl SettingArgs {
    /// Flags over environment over the file over defaults.
    pub(crate) fn load(&self) -> Result<BrokerConfig, ConfigError> {
        // A variable that is no text is none of ours: every name and value of ours is ASCII.
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        BrokerConfig::load(&Sources {
            file: self.config.clone(),
            environment: environment.collect(),
            flags: self.flags.clone(),
        })
    }

    fn from_matches(matches: &ArgMatches) -> Result<SettingArgs, clap::Error> {
        let mut flags = Vec::new();
        for pair in matches.get_many::<String>("set").into_iter().flatten() {
            let Some((key, value)) = pair.split_once('=') else {
                let message = format!("--set takes KEY=VALUE, not {pair:?}\n");
                return Err(clap::Error::raw(clap::error::ErrorKind::ValueValidation, message));
            };
            flags.push((key.trim().to_owned(), value.trim().to_owned(), "--set".to_owned()));
        }
        for setting in SETTINGS {
            let Some((flag, _)) = setting.flag else { continue };
            if let Some(values) = matches.get_many::<String>(setting.key) {
                // Several of one flag make a list, as commas do.
                let values = values.cloned().collect::<Vec<_>>().join(",");
                flags.push((setting.key.to_owned(), values, format!("--{flag}")));
            }
        }
        Ok(SettingArgs { config: matches.get_one::<PathBuf>("config").cloned(), flags })
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingArgs, clap::Error> {
        SettingArgs::from_matches(matches)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingArgs::from_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings in TOML");
        let set = Arg::new("set")
            .long("set")
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .help("Any setting by its name; `floodmark config show` lists them");
        let defaults = BrokerConfig::default();
        let flags = defaults.effective().filter_map(|e| flag(e.setting, &e.value));
        command.arg(config).args(flags).arg(set)
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingArgs::augment_args(command)
    }
}

fn flag(setting: &'static Setting, default: &str) -> Option<Arg> {
    let (flag, value_name) = setting.flag?;
    let help = format!("{} [default: {default}] [env: {}]", setting.documentation.trim(), setting.variable());
    Some(Arg::new(setting.key).long(flag).value_name(value_name).action(ArgAction::Append).help(help))
}
