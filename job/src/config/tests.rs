use super::*;

fn pairs(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: std::collections::BTreeMap<&str, &str> = [
        ("PVMIGRATE_SOURCE_SC", "a"),
        ("PVMIGRATE_DEST_SC", "b"),
        ("PVMIGRATE_RELEASE", "pvmigrate"),
        ("PVMIGRATE_RELEASE_NAMESPACE", "ops"),
        ("PVMIGRATE_POD", "pvmigrate-x"),
        ("PVMIGRATE_IMAGE", "pvmigrate:dev"),
        ("PVMIGRATE_WEBHOOK_SERVICE", "pvmigrate-webhook"),
        ("PVMIGRATE_CA_SECRET", "pvmigrate-ca"),
    ]
    .into();
    all.extend(changes.iter().copied());
    all.into_iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

/// A configuration that differs from a plain one in these variables.
pub fn config(changes: &[(&str, &str)]) -> Config {
    with(changes, &[]).unwrap()
}

/// A plain environment with changes, and flags.
fn with(changes: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let pairs = pairs(changes);
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
    parse(&pairs, flags)
}

/// These variables and flags, and nothing else.
pub fn parse(variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let variables = variables
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()));
    let line: Vec<String> = ["pvmigrate", "run"]
        .iter()
        .chain(flags)
        .map(ToString::to_string)
        .collect();
    match read(variables, &line)? {
        Verb::Run(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

fn said(changes: &[(&str, &str)], flags: &[&str]) -> String {
    with(changes, flags).unwrap_err().to_string()
}

#[test]
fn the_fields_are_well_formed() {
    use clap::CommandFactory;
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        _config: Config,
    }
    Alone::command().debug_assert();
}

#[test]
fn lists_numbers_and_empty_variables_are_read() {
    let config = config(&[
        ("PVMIGRATE_NAMESPACES", "x,y"),
        ("PVMIGRATE_STAGE_SECONDS", "7"),
        ("PVMIGRATE_SOURCE_VOLUMES", "delete"),
        ("PVMIGRATE_RUN_TOKEN", ""),
        ("PVMIGRATE_PREFLIGHT_ONLY", "false"),
        ("PVMIGRATE_UNKNOWN", "is not ours to judge"),
    ]);
    assert_eq!(config.namespaces, ["x", "y"]);
    assert_eq!(config.stage_limit(), Duration::from_secs(7));
    assert_eq!(config.source_volumes, SourceVolumes::Delete);
    assert!(config.selects("x") && !config.selects("z"));
    assert!(!config.preflight_only);
}

#[test]
fn a_flag_goes_before_its_variable() {
    let variables = [
        ("PVMIGRATE_NAMESPACES", "x,y"),
        ("PVMIGRATE_RETRY_FAILED", "true"),
        ("PVMIGRATE_MOVER_THREADS", "many"),
    ];
    let config = with(
        &variables,
        &[
            "--dest-sc=c",
            "--namespace",
            "u",
            "--namespaces=v,w",
            "--retry-failed=false",
            "--mover-threads=2",
            "--mover-exclude=-a,b",
            "--preflight-only",
        ],
    )
    .unwrap();
    assert_eq!(config.dest_sc, "c");
    assert_eq!(config.source_sc, "a");
    assert_eq!(config.namespaces, ["u", "v", "w"]);
    assert!(!config.retry_failed && config.preflight_only);
    assert_eq!(config.mover_threads.get(), 2);
    assert_eq!(config.mover_exclude, ["-a,b"]);
}

#[test]
fn flags_alone_are_enough() {
    let config = parse(&[], &["--source-sc", "a", "--dest-sc", "b"]).unwrap();
    assert_eq!(config.release, "pvmigrate");
    assert_eq!(config.pod_ready_seconds, 300);
    assert_eq!(config.set_default, SetDefault::False);
}

#[test]
fn flags_of_the_older_command_are_read() {
    let config = parse(
        &[],
        &[
            "--source-sc",
            "a",
            "--dest-sc",
            "b",
            "--namespace",
            "shop",
            "--set-defaults",
            "--verbose-copy",
            "--skip-source-validation",
            "--skip-preflight-validation",
            "--pod-ready-timeout",
            "61",
            "--delete-pv-timeout=301",
        ],
    )
    .unwrap();
    assert_eq!(config.namespaces, ["shop"]);
    assert_eq!(config.set_default, SetDefault::True);
    assert_eq!(config.log, "debug");
    assert!(config.skip_source_check && config.skip_preflight);
    assert_eq!(config.pod_ready_limit(), Duration::from_secs(61));
    assert_eq!(config.volume_delete_limit(), Duration::from_secs(301));
    assert!(
        with(&[], &["--preflight-validation-only"])
            .unwrap()
            .preflight_only
    );
    for gone in ["--rsync-image=x", "--rsync-flags=--bwlimit=5"] {
        assert_eq!(
            said(&[], &[gone]),
            format!(
                "{} is gone: nothing is copied with rsync any more; docs/options.md says what took its place",
                gone.split('=').next().unwrap()
            )
        );
    }
}

#[test]
fn how_movers_work_is_read() {
    let plain = config(&[]);
    assert_eq!(plain.mover_verify, Level::Written);
    assert_eq!(plain.mover_verify, Level::default());
    assert_eq!(plain.mover_threads, pvmigrate_record::order::THREADS);
    assert_eq!(plain.mover_bandwidth, None);
    let config = config(&[
        ("PVMIGRATE_MOVER_VERIFY", "full"),
        ("PVMIGRATE_MOVER_EXCLUDE", "cache\n{a,b}/*.tmp\n"),
        ("PVMIGRATE_MOVER_BANDWIDTH", "50Mi"),
        ("PVMIGRATE_MOVER_LOSE", "acls,specials"),
        ("PVMIGRATE_MOVER_SELINUX", "true"),
        ("PVMIGRATE_MOVER_THREADS", "16"),
        (
            "PVMIGRATE_MOVER_RESOURCES",
            r#"{"limits":{"memory":"1Gi"}}"#,
        ),
    ]);
    assert_eq!(config.mover_verify, Level::Full);
    assert_eq!(config.mover_exclude, ["cache", "{a,b}/*.tmp"]);
    assert_eq!(config.mover_bandwidth, NonZeroU64::new(50 << 20));
    assert_eq!(config.mover_lose, [Attribute::Acls, Attribute::Specials]);
    assert!(config.mover_selinux);
    assert_eq!(config.mover_threads.get(), 16);
    let limits = config.mover_resources.unwrap().limits.unwrap();
    assert_eq!(limits["memory"].0, "1Gi");
}

#[test]
fn a_setting_that_cannot_be_is_named_with_its_value_and_what_can() {
    for (field, given, said_of_it) in [
        (
            "MOVER_VERIFY",
            "some",
            "\"some\": unknown variant `some`, expected one of `none`, `metadata`, `written`, `full`",
        ),
        (
            "MOVER_LOSE",
            "acls,colour",
            "\"colour\": unknown variant `colour`, expected one of `owner`, `mode`",
        ),
        (
            "MOVER_BANDWIDTH",
            "fast",
            "write it as a quantity such as 50Mi",
        ),
        ("MOVER_BANDWIDTH", "50K", "leave it empty for no limit"),
        ("MOVER_BANDWIDTH", "50", "less than 64Ki"),
        (
            "MOVER_THREADS",
            "0",
            "write a number of threads from 1 to 256",
        ),
        (
            "MOVER_RESOURCES",
            "{]",
            "it is not a ResourceRequirements: ",
        ),
        (
            "FREEZE_SECONDS",
            "5m",
            "\"5m\": write a whole number of seconds, 1 or more",
        ),
        (
            "STAGE_SECONDS",
            "0",
            "write a whole number of seconds, 1 or more",
        ),
        (
            "CLAIMS",
            "shop/x,y",
            "\"y\": write a claim as namespace/name",
        ),
        ("EXCLUDE_CLAIMS", "/y", "write a claim as namespace/name"),
        ("SELECTOR", "a b", "is no label's key"),
        ("SIZES", "shop/x", "write a size as namespace/name=20Gi"),
        ("SIZES", "*=big", "write a size as a quantity such as 20Gi"),
        (
            "SET_DEFAULT",
            "maybe",
            "expected one of `false`, `true`, `force`",
        ),
        ("SOURCE_VOLUMES", "drop", "expected `keep` or `delete`"),
        ("NAMESPACES", "a,,b", "a name is needed"),
        (
            "PREFLIGHT_ONLY",
            "yes",
            "\"yes\": expected one of true, false",
        ),
    ] {
        let variable = format!("PVMIGRATE_{field}");
        let error = said(&[(&variable, given)], &[]);
        assert!(error.starts_with(&format!("{variable} is ")), "{error}");
        assert!(error.contains(said_of_it), "{error}");
        // The same as a flag, which is then what is named.
        let flag = format!("--{}", field.to_lowercase().replace('_', "-"));
        let error = said(&[(&variable, "unread")], &[&format!("{flag}={given}")]);
        assert!(error.starts_with(&format!("{flag} is ")), "{error}");
        assert!(error.contains(said_of_it), "{error}");
    }
}

#[test]
fn a_flag_that_does_not_exist_is_said_with_one_that_does() {
    let error = said(&[], &["--mover-thread=2"]);
    assert!(
        error.contains("unexpected argument '--mover-thread'"),
        "{error}"
    );
    assert!(error.contains("'--mover-threads'"), "{error}");
}

#[test]
fn equal_classes_are_refused_in_a_sentence() {
    assert_eq!(
        said(&[("PVMIGRATE_DEST_SC", "a")], &[]),
        "sourceSC and destSC are both \"a\": name two different StorageClasses"
    );
}

#[test]
fn only_preflight_and_no_preflight_exclude_each_other() {
    assert_eq!(
        said(&[], &["--preflight-only", "--skip-preflight"]),
        "preflightOnly and skipPreflight are both set, which leaves nothing to do: choose one"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        said(&[("PVMIGRATE_SOURCE_SC", "")], &[]),
        "PVMIGRATE_SOURCE_SC or --source-sc is missing: set one of them, or use the chart, which does"
    );
}

#[test]
fn the_run_is_named_by_the_question_and_nothing_else() {
    let run = config(&[]).run();
    // As it was before there were other ways to select claims.
    assert_eq!(run, "c09ff6e572");
    assert_eq!(
        run,
        config(&[
            ("PVMIGRATE_IMAGE", "other"),
            ("PVMIGRATE_POD", "p"),
            ("PVMIGRATE_SET_DEFAULT", "true"),
            ("PVMIGRATE_SIZES", "*=5Gi"),
        ])
        .run()
    );
    for (one, other) in [
        (
            ("PVMIGRATE_NAMESPACES", "x,y"),
            ("PVMIGRATE_NAMESPACES", "y,x,y"),
        ),
        (
            ("PVMIGRATE_CLAIMS", "x/a,x/b"),
            ("PVMIGRATE_CLAIMS", "x/b,x/a"),
        ),
    ] {
        assert_eq!(config(&[one]).run(), config(&[other]).run());
    }
    for change in [
        ("PVMIGRATE_DEST_SC", "c"),
        ("PVMIGRATE_RUN_TOKEN", "2"),
        ("PVMIGRATE_NAMESPACES", "x"),
        ("PVMIGRATE_RELEASE", "r"),
        ("PVMIGRATE_SELECTOR", "app=db"),
        ("PVMIGRATE_CLAIMS", "x/a"),
        ("PVMIGRATE_EXCLUDE_CLAIMS", "x/a"),
        ("PVMIGRATE_INCLUDE_UNCLASSED", "true"),
    ] {
        assert_ne!(run, config(&[change]).run(), "{change:?}");
    }
    assert_ne!(
        config(&[("PVMIGRATE_CLAIMS", "x/a")]).run(),
        config(&[("PVMIGRATE_EXCLUDE_CLAIMS", "x/a")]).run()
    );
}

#[test]
fn how_workloads_are_stopped_and_how_many_at_a_time_is_read() {
    let plain = config(&[]);
    assert_eq!(
        (plain.freeze, plain.bare_pods, plain.jobs),
        (FreezeBy::Auto, BarePods::Refuse, Jobs::Wait)
    );
    assert_eq!(plain.parallelism_groups.get(), 4);
    assert_eq!(plain.parallelism_per_node.get(), 2);
    assert_eq!(plain.parallelism_stopped_per_node.get(), 1);
    assert!(!plain.hold_ignore_budgets);
    let config = config(&[
        ("PVMIGRATE_FREEZE", "hold"),
        ("PVMIGRATE_BARE_PODS", "recreate"),
        ("PVMIGRATE_JOBS", "suspend"),
        ("PVMIGRATE_PARALLELISM_GROUPS", "9"),
        ("PVMIGRATE_PARALLELISM_PER_NODE", "1"),
        ("PVMIGRATE_PARALLELISM_STOPPED_PER_NODE", "3"),
        ("PVMIGRATE_HOLD_IGNORE_BUDGETS", "true"),
    ]);
    assert_eq!(
        (config.freeze, config.bare_pods, config.jobs),
        (FreezeBy::Hold, BarePods::Recreate, Jobs::Suspend)
    );
    assert_eq!(config.parallelism_groups.get(), 9);
    assert_eq!(config.parallelism_per_node.get(), 1);
    assert_eq!(config.parallelism_stopped_per_node.get(), 3);
    assert!(config.hold_ignore_budgets);
    let none = said(&[("PVMIGRATE_PARALLELISM_GROUPS", "0")], &[]);
    assert!(none.contains("write a whole number, 1 or more"), "{none}");
}
