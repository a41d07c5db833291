//! Settings from files, and the example that is shipped.

use super::*;

fn load(text: &str, overrides: &Overrides) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    std::fs::write(&path, text).expect("writes");
    Settings::load(Some(&path), overrides)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(|e| format!("{e}: ")).collect()
}

#[test]
fn defaults_are_those_of_the_parts() {
    let defaults = Settings::default();
    assert_eq!(defaults.server(), ServerConfig::default());
    defaults.validate().expect("are in range");
}

#[test]
fn the_file_goes_before_the_default_and_an_override_before_the_file() {
    let overrides = Overrides { max_targets: Some(3), ..Overrides::default() };
    let settings = load("max_targets = 5\nmax_calls = 7\n", &overrides).expect("is read");
    let expected = Settings { max_targets: 3, max_calls: 7, ..Settings::default() };
    assert_eq!(settings, expected);
}

#[test]
fn every_key_is_also_a_variable_of_its_name() {
    for (key, env) in Settings::KEYS {
        // Older than the rule.
        let expected =
            if *key == "cache_dir" { "SAM4MLLM_CACHE".into() } else { format!("SAM4MLLM_{key}").to_uppercase() };
        assert_eq!(*env, expected);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("max_target = 5", "max_target"),
        ("max_targets = \"many\"", "max_targets"),
        ("max_targets = -1", "max_targets"),
        ("strategy = \"guess\"", "guess"),
        ("[limits]\nmax_targets = 5", "limits"),
        ("listen = 50051", "listen"),
        ("max_targets = 5\nmax_targets = 6", "max_targets"),
        ("no toml", "no toml"),
    ];
    for (text, name) in cases {
        let error = load(text, &Overrides::default()).expect_err(text);
        let said = chain(&error);
        assert!(said.contains(name) && said.contains("node.toml"), "{text:?}: {said}");
    }
    assert!(Settings::load(Some(Path::new("nowhere/node.toml")), &Overrides::default()).is_err());
}

#[test]
fn contradictions_are_refused() {
    let cases = [
        ("listen = \"0.0.0.0:50051\"", "listen"),
        ("listen = \"[::]:50051\"", "listen"),
        ("listen = \"localhost:50051\"", "listen"),
        ("listen = \"\"", "listen"),
        ("tls_certificate = \"a.pem\"", "tls_key"),
        ("tls_key = \"a.pem\"", "tls_certificate"),
        ("tls_client_ca = \"a.pem\"", "tls_client_ca"),
        ("metrics_listen = \"0.0.0.0:9464\"", "metrics_listen"),
        ("web_listen = \"0.0.0.0:8080\"", "web_listen"),
        ("web_origin = \"robot.example\"", "web_origin"),
        ("web_origin = \"https://robot.example/\"", "web_origin"),
        ("threads = 0", "threads"),
        ("max_sessions = 0", "max_sessions"),
        ("session_memory_mib = 0", "session_memory_mib"),
        ("client_frames_per_s = -1.0", "client_frames_per_s"),
        ("client_groundings_per_min = inf", "client_groundings_per_min"),
        ("window_mib = 0", "window_mib"),
        ("max_message_mib = 1025", "max_message_mib"),
        ("ground_timeout_ms = 0", "ground_timeout_ms"),
        ("record_max_mib = 0", "record_max_mib"),
    ];
    for (text, setting) in cases {
        let settings = load(text, &Overrides::default()).expect("is read");
        assert_eq!(settings.validate().expect_err(text).setting(), setting, "{text:?}");
    }
    for text in [
        "listen = \"0.0.0.0:1\"\nallow_plaintext = true",
        "listen = \"0.0.0.0:1\"\ntls_certificate = \"a\"\ntls_key = \"b\"",
        "listen = \"[::ffff:127.0.0.1]:1\"",
        "listen = \"\"\nunix_socket = \"node.sock\"",
        "listen = \"0.0.0.0:1\"\nweb_listen = \"0.0.0.0:2\"\ntls_certificate = \"a\"\ntls_key = \"b\"",
        "web_origin = \"https://robot.example:8443\"",
        "listen = \"127.0.0.1:1\"\nmetrics_listen = \"[::1]:1\"",
    ] {
        load(text, &Overrides::default()).expect("is read").validate().expect(text);
    }
}

/// The example says each key once, with its default; keys without one are commented out.
#[test]
fn the_example_has_every_key_at_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/sam4mllm.toml");
    let example = Settings::load(Some(&path), &Overrides::default()).expect("is read");
    assert_eq!(example, Settings::default());
    let text = std::fs::read_to_string(&path).expect("is there");
    let key = |line: &str| line.trim_start_matches('#').split_once(" = ").map(|(key, _)| key.to_owned());
    // A commented key has no space behind its sign; a comment has one.
    let keys: Vec<String> = text.lines().filter(|l| !l.starts_with("# ")).filter_map(key).collect();
    let mut expected: Vec<&str> = Settings::KEYS.iter().map(|(key, _)| *key).collect();
    let mut found: Vec<&str> = keys.iter().map(String::as_str).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    // With every comment sign taken away it is still a file of known keys.
    let bare =
        |line: &str| if line.starts_with("# ") { String::new() } else { line.trim_start_matches('#').to_owned() };
    let all: Vec<String> = text.lines().map(bare).collect();
    let mut whole = load(&all.join("\n"), &Overrides::default()).expect("every key has a value of its type");
    // That one takes a feature.
    whole.otlp_endpoint = whole.otlp_endpoint.filter(|_| cfg!(feature = "otlp"));
    whole.validate().expect("valid");
}
