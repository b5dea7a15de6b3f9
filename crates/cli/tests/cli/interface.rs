//! What the command line looks like: help, versions, wrong flags, configuration.

use crate::place::Place;
use insta::assert_snapshot;
use serde_json::Value;

/// Every command that help lists.
const COMMANDS: [&str; 36] = [
    "init",
    "commit",
    "tag",
    "untag",
    "tags",
    "ls-tags",
    "search",
    "log",
    "info",
    "layers",
    "platforms",
    "ls",
    "cat",
    "push",
    "pull",
    "render",
    "check",
    "write",
    "diff",
    "serve",
    "server",
    "mount",
    "run",
    "shell",
    "join",
    "edit",
    "reset",
    "unmount",
    "runtime",
    "warm",
    "cache",
    "stats",
    "config",
    "demo",
    "completions",
    "version",
];

#[test]
fn help_lists_commands_and_exit_codes() {
    assert_snapshot!(Place::make().ok(&["--help"]), @r#"
    Mount software environments that live in a remote, content-addressed repository.

    Every file of a mounted environment is seekable at once: only the blocks that are touched cross the
    network. Repositories and tags are those of SPFS.

    Usage: farseek [OPTIONS] <COMMAND>

    Commands:
      init         Create a repository
      commit       Store a directory as a layer, and tag it
      tag          Make something the newest version of tags
      untag        Remove a version of a tag, or the whole tag
      tags         List all tags
      ls-tags      Browse the folders of tags [alias: list-tags]
      search       Search the names of tags, in every configured remote
      log          Show the history of a tag
      info         Describe what references name
      layers       List the layers that are stored
      platforms    List the platforms that are stored
      ls           List a directory of an environment, without mounting it [aliases: list, list-dir]
      cat          Print a file of an environment, without mounting it [aliases: read, read-file,
                   cat-file]
      push         Copy environments from the local repository to a remote
      pull         Copy environments from a remote to the local repository
      render       Write an environment to a directory, or to the local repository's store of renders
      check        Read and hash all of a repository, say what is wrong, and repair it
      clean        Remove what no tag leads to any more
      write        Store a file, or what comes from the standard input, as a blob [alias: write-file]
      diff         Compare two environments, path by path
      serve        Serve a repository over HTTP, read-only
      server       Serve a repository to clients of SPFS, and of Farseek: gRPC, and HTTP for payloads
      mount        Mount an environment on a directory
      run          Run a command in an environment
      shell        Start a shell in an environment
      join         Run a command in a runtime that is there
      edit         In a runtime: let its environment be written to, or no more
      reset        In a runtime: undo changes of its environment
      unmount      Take a mounted environment off its directory [alias: umount]
      runtime      Show who uses which environment, and remove records of those who have ended [alias:
                   rt]
      warm         Fetch an environment ahead, so that it can be read without waiting
      cache        Show what blocks take on the disk, and remove some
      stats        Show what mounts have read, fetched and kept
      config       Print the effective configuration as JSON
      demo         Show what this is for: commit, serve, mount and read, all on this machine
      completions  Print a completion script for a shell
      version      Print the version
      help         Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...
              Say more: -v information, -vv details, -vvv everything

          --log-file <FILE>
              Append logs to this file instead of writing them to the standard error

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Exit codes:
      0  done
      1  anything not listed here
      2  wrong usage: a flag, a reference that cannot be one, the configuration
      3  not found: a tag, a digest, a path, a repository
      4  an abbreviated digest means several objects
      5  a remote cannot be reached, or stopped answering
      6  corrupt data
      7  permission denied
      8  the mount point or FUSE cannot be used
      9  busy: the mount or a tag is in use by another process
      130  interrupted
    "#);
}

#[test]
fn the_help_of_mount_is_whole() {
    assert_snapshot!(Place::make().ok(&["mount", "--help"]), @r#"
    Mount an environment on a directory

    Usage: farseek mount [OPTIONS] <REF> <MOUNTPOINT>

    Arguments:
      <REF>         A tag, a digest, or several joined by '+', the topmost last
      <MOUNTPOINT>  An empty directory

    Options:
      -f, --foreground              Stay in the foreground; interrupt to unmount
      -v, --verbose...              Say more: -v information, -vv details, -vvv everything
          --log-file <FILE>         Append logs to this file instead of writing them to the standard
                                    error
      -r, --remote <NAME|URL|PATH>  Read from this repository too: a configured name, a URL or a path.
                                    May be given several times; replaces the configured ones
          --no-local                Do not read from the local repository, and put nothing into it
          --json                    Print JSON, for scripts
          --stall <SECONDS>         Give up on a remote that has sent nothing for so long
          --verify <WHEN>           When files are checked against their digests: small ones at once and
                                    large ones once they are whole (auto), all before their first byte
                                    is served (strict), never (off)
          --promote <WHEN>          When files become part of the local repository: once they are whole
                                    and verified (complete), once somebody jumps about in them
                                    (on-seek), never
      -h, --help                    Print help

    Caches:
          --blob-cache-max-bytes <SIZE>
              Memory for blocks of files [alias: --cache-size]
          --blob-cache-max-single-bytes <SIZE>
              Blocks of files larger than this stay in memory only while they are being read
          --disk-cache <DIR>
              Keep blocks on the disk in this directory
          --no-disk-cache
              Keep no blocks on the disk
          --disk-cache-max-bytes <SIZE>
              The most that blocks may take on the disk, of all mounts together
          --disk-cache-keep-free <PERCENT>
              The share of the disk that blocks leave free

    Fetching:
          --block-size <SIZE>              Bytes of a block: a power of two from 4K to 16M
          --whole-fetch-max-bytes <SIZE>   Files up to this size are fetched whole and verified first
                                           [alias: --whole-fetch-max]
          --in-flight-max-bytes <SIZE>     Memory for what is under way
          --max-fetches <N>                Requests that may be under way at once
          --readahead-max-bytes <SIZE>     The most that is fetched ahead of one sequential reader; 0
                                           for nothing
          --readahead-budget-bytes <SIZE>  The most that is fetched ahead of all readers together

    Advanced:
          --nonempty              Mount over a directory that is not empty
          --allow-other [<BOOL>]  Let other users in, as permissions allow (the default for root)
                                  [possible values: true, false]
          --threads <N>           Threads that answer the kernel
          --no-passthrough        Do not let the kernel read local files by itself
          --metrics <ADDR>        Tell a monitoring system what the mount does, at http://ADDR/metrics:
                                  a port on loopback, or an address with its port

    Examples:
      farseek mount tools/python /mnt/python
      farseek mount --remote https://packages.example/repo tools/python+project/extra /mnt/env
      farseek mount --foreground --no-local -r origin -vv tools/python /mnt/python

    Looked at in this order: the local repository (unless --no-local), then the remotes. It goes to
    the background once the mount answers; `farseek unmount MOUNTPOINT` ends it.
    "#);
}

#[test]
fn every_command_has_help_with_examples() {
    let place = Place::make();
    for command in COMMANDS {
        let help = place.ok(&[command, "--help"]);
        assert!(help.contains("Usage: farseek"), "{command}: {help}");
        let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        let examples = examples.filter(|line| line.starts_with("  ") && line.contains("farseek"));
        assert!(
            command == "version" || (1..=3).contains(&examples.count()),
            "{command}: {help}"
        );
    }
}

#[test]
fn versions_and_completions_need_no_valid_configuration() {
    let place = Place::make();
    place.write("home/.config/farseek/farseek.toml", "[nonsense");
    let version = format!("farseek {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(place.ok(&["--version"]), version);
    assert_eq!(place.ok(&["version"]), version);
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ok(&["completions", shell]);
        assert!(script.contains("unmount"), "{shell}: {script}");
    }
}

#[test]
fn wrong_flags_are_usage() {
    let place = Place::make();
    assert_snapshot!(place.told(&["mount", "--stall", "0", "x", "y"]), @r#"
    exit 2
    error: invalid value '0' for '--stall <SECONDS>': 0 is not in 1..18446744073709551615

    For more information, try '--help'.
    "#);
    assert_snapshot!(place.told(&["mount", "--block-size", "3000", "x", "y"]), @r#"
    exit 2
    farseek: reader.block_size is 3000: it must be a power of two from 4 KiB to 16 MiB
    "#);
    assert_snapshot!(place.told(&["mount", "a++b", "y"]), @r#"
    exit 2
    error: invalid value 'a++b' for '<REF>': 'a++b' is not a valid environment spec: an item between '+' signs is empty

    For more information, try '--help'.
    "#);
    assert_snapshot!(place.told(&["untag", "x", "--all", "--latest"]), @r#"
    exit 2
    error: the argument '--all' cannot be used with '--latest'

    Usage: farseek untag --all <TAG>

    For more information, try '--help'.
    "#);
    assert_snapshot!(place.told(&["info"]), @r#"
    exit 2
    farseek: say what to describe: a tag or a digest, as in `farseek info tools/python`; `farseek tags` lists the tags there are
    "#);
    assert_snapshot!(place.told(&["moutn", "x"]), @r#"
    exit 2
    error: unrecognized subcommand 'moutn'

      tip: some similar subcommands exist: 'unmount', 'umount', 'mount'

    Usage: farseek [OPTIONS] <COMMAND>

    For more information, try '--help'.
    "#);
    assert_snapshot!(place.told(&["serve", "here"]), @r#"
    exit 2
    farseek: 'here' is not an address: write HOST:PORT, such as 127.0.0.1:7787
    "#);
}

#[test]
fn configuration_is_shown_without_secrets() {
    let place = Place::make();
    place.write(
        "home/.config/spfs/spfs.toml",
        "[remote.origin]\naddress = 'https://me:secret@host/repo?access_token=secret'\n",
    );
    place.write(
        "home/.config/farseek/farseek.toml",
        "[reader]\nstall_seconds = 7\n",
    );
    let text = place.ok(&["config"]);
    assert!(!text.contains("secret"), "{text}");
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["reader"]["stall_seconds"], 7);
    assert_eq!(
        config["remote"]["origin"]["address"],
        "https://me:***@host/repo?access_token=***"
    );
    assert_eq!(config["filesystem"]["secondary_repositories"][0], "origin");
    assert_eq!(config["storage"]["root"], "[PLACE]/home/.local/share/spfs");
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_one() {
    let place = Place::make();
    place.write(
        "home/.config/farseek/farseek.toml",
        "[reader]\nstal_seconds = 7\n",
    );
    assert_snapshot!(place.told(&["tags"]), @r#"
    exit 2
    farseek: [PLACE]/home/.config/farseek/farseek.toml: unknown key 'reader.stal_seconds': did you mean 'reader.stall_seconds'?
    "#);
    let output = Place::make()
        .farseek(&["tags"])
        .env("FARSEEK_STALL", "7")
        .output()
        .unwrap();
    assert_snapshot!(place.describe(&output), @r#"
    exit 2
    farseek: the environment variable FARSEEK_STALL names no known key: did you mean FARSEEK_READER__STALL_SECONDS?
    "#);
}

#[test]
fn a_mount_without_any_repository_says_how_to_name_one() {
    let place = Place::make();
    std::fs::create_dir(place.path("mnt")).unwrap();
    assert_snapshot!(place.told(&["mount", "x", "mnt"]), @r#"
    exit 3
    farseek: there is no repository to read from: there is no local repository at [PLACE]/home/.local/share/spfs yet, and no remote is given or configured; say which with --remote NAME|URL|PATH
    "#);
    assert_snapshot!(place.told(&["mount", "--no-local", "x", "mnt"]), @r#"
    exit 3
    farseek: there is no repository to read from: --no-local leaves out the local repository, and no remote is given or configured; say which with --remote NAME|URL|PATH
    "#);
    assert_snapshot!(place.told(&["unmount", "mnt"]), @r#"
    exit 8
    farseek: nothing is mounted at [PLACE]/mnt
    "#);
}

#[test]
fn statistics_need_a_mount_of_ours() {
    let place = Place::make();
    std::fs::create_dir(place.path("mnt")).unwrap();
    assert_snapshot!(place.told(&["stats", "mnt"]), @r#"
    exit 8
    farseek: no mount of farseek's is at [PLACE]/mnt
    "#);
    assert_snapshot!(place.told(&["stats", "--watch", "0"]), @r#"
    exit 2
    error: invalid value '0' for '--watch [<SECONDS>]': 0 is not in 1..=86400

    For more information, try '--help'.
    "#);
    assert_snapshot!(place.told(&["mount", "--metrics", "here", "x", "mnt"]), @r#"
    exit 2
    farseek: --metrics: 'here' is not an address: write PORT or ADDRESS:PORT, such as 9100 or 127.0.0.1:9100
    "#);
}

#[test]
fn a_mount_point_that_will_not_do_is_named() {
    let place = Place::make();
    place.write("tree/file", "x");
    place.ok(&["commit", "tree", "-t", "x"]);
    assert_snapshot!(place.told(&["mount", "x", "tree"]), @r#"
    exit 8
    farseek: cannot mount at [PLACE]/tree: it is not empty, and the mount would hide what is in it
    "#);
    assert_snapshot!(place.told(&["mount", "x", "tree/file"]), @r#"
    exit 8
    farseek: cannot mount at [PLACE]/tree/file: it is not a directory
    "#);
    assert_snapshot!(place.told(&["mount", "x", "nowhere"]), @r#"
    exit 8
    farseek: cannot mount at [PLACE]/nowhere: there is no such directory: create it first
    "#);
    std::fs::create_dir(place.path("mnt")).unwrap();
    assert_snapshot!(place.told(&["mount", "nothing/like/it", "mnt"]), @r#"
    exit 3
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'nothing/like/it'; `farseek tags` lists the tags there are
    "#);
}

#[test]
fn a_remote_that_is_not_supported_does_not_keep_the_others_from_being_used() {
    let place = Place::make();
    place.write(
        "home/.config/spfs/spfs.toml",
        "[remote.origin]\naddress = 'ftp://host/x'\n",
    );
    std::fs::create_dir(place.path("mnt")).unwrap();
    place.write("tree/file", "x");
    place.ok(&["commit", "tree", "-t", "x"]);
    assert_snapshot!(place.told(&["mount", "nothing", "mnt"]), @r#"
    exit 3
    warning: left out: cannot open the remote 'origin': 'ftp://host/x' is not a valid repository address: there is no kind of repository called 'ftp': it may be file, http, https, grpc, grpcs, s3, gs, az, tar, proxy or fallback (write ./ before the name of a directory)
    farseek: file:[PLACE]/home/.local/share/spfs has no tag 'nothing'; `farseek tags` lists the tags there are
    "#);
}

#[test]
fn a_log_that_cannot_be_written_is_no_missing_tag() {
    let place = Place::make();
    place.write("file", "");
    let table = [
        (vec!["config", "--log-file", "none/log"], 1),
        (vec!["config", "--log-file", "file/log"], 1),
    ];
    for (words, code) in table {
        let output = place.farseek(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
    let mut filtered = place.farseek(&["config"]);
    let output = filtered.env("FARSEEK_LOG", "a=b=c").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("'a=b=c' is not a log filter"), "{said}");
}

#[test]
fn what_lists_speaks_json_too() {
    let place = Place::make();
    assert_eq!(place.ok(&["config", "--json"]), place.ok(&["config"]));
    place.write("tree/file", "");
    place.ok(&["commit", "tree", "-t", "tools/python", "-t", "single"]);
    let list = |words: &[&str]| -> Value { serde_json::from_str(&place.ok(words)).unwrap() };
    let top = list(&["ls-tags", "--json"]);
    assert_eq!(top, serde_json::json!(["tools/", "single"]));
    let all = list(&["ls-tags", "--recursive", "--json"]);
    assert_eq!(all, serde_json::json!(["single", "tools/python"]));
}
