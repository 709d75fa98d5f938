use super::*;
use crate::config::{LoadOptions, load};

/// What a configuration needs, and no more than what every one does.
fn needs(text: &str) -> Needs {
    let source = Source::Text { name: "test".to_owned(), text: text.to_owned() };
    let loaded = load(&source, &Environment::default(), LoadOptions { check_secrets: false }).unwrap();
    let surroundings = Surroundings {
        config_file: Some("/etc/sidekey/sidekey.toml".into()),
        runtime: "/runtime/sidekey".into(),
        path: vec!["/nowhere/bin".into()],
        ..Surroundings::default()
    };
    Needs::of(&loaded.config, &surroundings)
}

fn paths(paths: &BTreeSet<PathBuf>) -> String {
    let texts: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    texts.join(" ")
}

/// What is configured; files, ports out, ports in, folders that are written.
type Case<'a> = (&'a str, &'a str, &'a [u16], &'a [u16], &'a str);

#[test]
fn what_the_configuration_names_is_needed_and_nothing_else() {
    let route = "[route.a]\nupstream = \"https://api.example:8443/v1\"\n";
    let cases: [Case<'_>; 10] = [
        ("credential = false", "", &[53, 8443], &[7600, 7601], "/runtime/sidekey"),
        (
            "credential = { type = \"bearer\", token = { file = \"/s/token\" } }",
            "/s/token",
            &[53, 8443],
            &[7600, 7601],
            "/runtime/sidekey",
        ),
        (
            "credential = false\ntls = { ca = \"/t/ca\", cert = \"/t/cert\", key = \"/t/key\" }\n\
             [server]\nadmin = false\nhealth = \"127.0.0.1:7602\"\nlisten = [\"127.0.0.1:0\", \"unix:/x/s.sock\"]",
            "/t/ca /t/cert /t/key",
            &[53, 8443],
            &[0, 7602],
            "",
        ),
        (
            "credential = { type = \"client_credentials\", token_url = \"https://id.example\", client_id = \"a\", \
             client_secret = { file = \"/s/secret\" } }",
            "/s/secret",
            &[53, 443, 8443],
            &[7600, 7601],
            "/runtime/sidekey",
        ),
        (
            "credential = { type = \"authorization_code\", issuer = \"https://id.example:9443\", client_id = \"a\", \
             auth_method = \"none\", redirect_uri = \"http://127.0.0.1:8085/back\" }\n\
             [store]\ntype = \"file\"\npath = \"/store\"",
            "",
            &[53, 443, 8443, 9443],
            &[7600, 7601, 8085],
            "/runtime/sidekey /store",
        ),
        (
            "credential = false\negress_proxy = { url = \"http://proxy.example:3128\", username = \"u\", \
             password = { file = \"/s/proxy\" } }",
            "/s/proxy",
            &[53, 3128],
            &[7600, 7601],
            "/runtime/sidekey",
        ),
        (
            "credential = false\n[store]\ntype = \"redis\"\nurl = \"rediss://cache.example:6380\"\n\
             password = { file = \"/s/redis\" }\nencryption_key = { file = \"/s/seal\" }",
            "/s/redis /s/seal",
            &[53, 6380, 8443],
            &[7600, 7601],
            "/runtime/sidekey",
        ),
        (
            "credential = false\n[caller.ci]\ntoken = [{ file = \"/s/new\" }, { file = \"/s/old\" }]",
            "/s/new /s/old",
            &[53, 8443],
            &[7600, 7601],
            "/runtime/sidekey",
        ),
        (
            "credential = false\n[server]\nadmin_token = { file = \"/s/admin\" }",
            "/s/admin",
            &[53, 8443],
            &[7600, 7601],
            "",
        ),
        (
            "credential = false\n[server]\nlisten = { bind = \"127.0.0.1:7443\", tls = { cert = \"/l/cert\", \
             key = \"/l/key\", ca = \"/l/ca\" } }",
            "/l/ca /l/cert /l/key",
            &[53, 8443],
            &[7443, 7601],
            "/runtime/sidekey",
        ),
    ];
    for (rest, files, connect, bind, writes) in cases {
        let mut got = needs(&format!("{route}{rest}"));
        assert!(got.files.remove(Path::new("/etc/sidekey/sidekey.toml")), "{rest}");
        assert_eq!(paths(&got.files), files, "{rest}");
        assert_eq!(got.connect, connect.iter().copied().collect(), "{rest}");
        assert_eq!(got.bind, bind.iter().copied().collect(), "{rest}");
        assert_eq!(paths(&got.writes), writes, "{rest}");
        assert_eq!(paths(&got.sockets), if rest.contains("unix:") { "/x" } else { "" }, "{rest}");
        assert_eq!(paths(&got.programs), "", "{rest}");
    }
}

#[test]
fn programs_are_open_only_where_one_is_run() {
    let route =
        |credential| needs(&format!("[route.a]\nupstream = \"https://api.example\"\n{credential}")).reach();
    assert!(route("credential = false").run.is_empty());
    let run = route("credential = { type = \"exec\", command = [\"/helpers/token\"] }").run;
    assert!(run.contains(Path::new("/helpers")) && run.contains(Path::new("/usr")), "{run:?}");
    let run = route("credential = { type = \"bearer\", token = { exec = [\"vault\", \"read\"] } }").run;
    assert!(!run.contains(Path::new("/nowhere/bin")) && run.contains(Path::new("/usr")), "{run:?}");
}

#[test]
fn a_file_is_open_where_its_name_is_and_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = std::fs::canonicalize(folder.path()).unwrap();
    // As Kubernetes does it, and once more with a link that leads out.
    for inside in ["mount/..first", "elsewhere", "mount"] {
        std::fs::create_dir_all(folder.join(inside)).unwrap();
    }
    std::fs::write(folder.join("mount/..first/inside"), "a").unwrap();
    std::fs::write(folder.join("elsewhere/outside"), "b").unwrap();
    std::os::unix::fs::symlink("..first", folder.join("mount/..data")).unwrap();
    std::os::unix::fs::symlink("..data/inside", folder.join("mount/inside")).unwrap();
    std::os::unix::fs::symlink("../elsewhere/outside", folder.join("mount/outside")).unwrap();
    let reach = |name: &str| {
        Needs { files: BTreeSet::from([folder.join("mount").join(name)]), ..Needs::default() }.reach().read
    };
    assert_eq!(reach("inside"), BTreeSet::from([folder.join("mount")]));
    assert_eq!(reach("outside"), BTreeSet::from([folder.join("mount"), folder.join("elsewhere")]));
    assert_eq!(reach("missing"), BTreeSet::from([folder.join("mount")]));
}

#[test]
fn what_is_missing_is_named_each_by_itself() {
    let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
    let open = Reach {
        read: set(&["/etc", "/s"]),
        write: set(&["/store"]),
        sockets: set(&["/run/app"]),
        run: set(&["/usr"]),
        connect: [53, 443].into(),
        bind: [7600].into(),
        ..Reach::default()
    };
    let cases = [
        (Reach::default(), ""),
        (open.clone(), ""),
        // Below what is open, and read where it may run or write.
        (Reach { read: set(&["/s/deep", "/usr/share", "/store"]), ..Reach::default() }, ""),
        (Reach { read: set(&["/secrets", "/"]), ..Reach::default() }, "reading in /; reading in /secrets"),
        (Reach { write: set(&["/s", "/store/a"]), ..Reach::default() }, "writing in /s"),
        (
            Reach { sockets: set(&["/run", "/store"]), ..Reach::default() },
            "making a socket in /run; making a socket in /store",
        ),
        (Reach { run: set(&["/s"]), ..Reach::default() }, "running programs of /s"),
        (
            Reach { connect: [443, 8443].into(), bind: [0, 7600].into(), ..Reach::default() },
            "connecting to TCP port 8443; listening on TCP port 0",
        ),
    ];
    for (wanted, want) in cases {
        let missing: Vec<String> = open.lacks(&wanted).iter().map(ToString::to_string).collect();
        let cut = |text: &String| {
            let text = text.strip_prefix("the sandbox, which cannot be widened, does not allow ").unwrap();
            text.strip_suffix("; restart sidekey").unwrap().to_owned()
        };
        assert_eq!(missing.iter().map(cut).collect::<Vec<_>>().join("; "), want, "{wanted:?}");
    }
}

#[test]
fn a_reload_is_admitted_if_it_stays_within_and_where_nothing_is_confined() {
    let small = needs("[route.a]\nupstream = \"https://api.example\"\ncredential = false\n");
    let large = needs("[route.a]\nupstream = \"https://api.example:8443\"\ncredential = false\n");
    let sandbox = |landlock| crate::confinement::Sandbox {
        reach: small.reach(),
        landlock,
        open: Vec::new(),
        absent: Vec::new(),
    };
    assert_eq!(sandbox(Some(7)).admits(&small), Ok(()));
    assert_eq!(sandbox(Some(7)).admits(&large), Err(vec![Missing::Connect(8443)]));
    assert_eq!(sandbox(None).admits(&large), Ok(()));
}
