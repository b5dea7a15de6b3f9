//! `farseek ls`.

use anyhow::Result;
use chrono::{DateTime, Local, Utc};
use clap::Args;
use farseek_object::{MergedTree, Node, NodeKind, S_IFDIR, S_IFLNK, S_IFMT};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::exit::Failure;
use crate::size;
use crate::view::{self, Named, View};

const EXAMPLES: &str = "\
Examples:
  farseek ls tools/python
  farseek ls -l tools/python bin
  farseek ls -R tools/python+project/extra --remote origin";

/// `farseek ls`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LsArgs {
    /// A tag, a digest, or several joined by '+', the topmost last
    #[arg(value_name = "REF")]
    reference: String,
    /// The directory or file to list
    #[arg(default_value = "/")]
    path: String,
    /// List directories below it too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show modes, owners, sizes and times
    #[arg(short)]
    long: bool,
    /// Show sizes in KiB, MiB and so on
    #[arg(short = 'H', long)]
    human_readable: bool,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Lists in SPFS's form.
pub(crate) async fn run(args: LsArgs, app: &mut App) -> Result<()> {
    let repository = app.repository(args.repository.remote.as_deref()).await?;
    let Named::Environment(view) = view::find(&*repository, &args.reference).await? else {
        let message = format!(
            "'{0}' is a single blob, not a tree of files; `farseek cat {0}` prints it",
            args.reference
        );
        return Err(Failure::usage(message));
    };
    let Some(position) = view.position(&args.path) else {
        let message = format!(
            "'{}' has no file or directory '{}'",
            args.reference, args.path
        );
        return Err(Failure::not_found(message));
    };
    let listing = Listing::new(&view, &args);
    if args.json.json {
        return app.output.json(&listing.json(position));
    }
    for line in listing.lines(position) {
        app.output.line(line)?;
    }
    Ok(())
}

/// How a tree is to be shown.
struct Listing<'a> {
    tree: &'a MergedTree,
    /// Bytes of every node, of a directory with all that is below it.
    totals: Vec<u64>,
    user: String,
    time: String,
    long: bool,
    human: bool,
    recursive: bool,
}

impl<'a> Listing<'a> {
    fn new(view: &'a View, args: &LsArgs) -> Self {
        let user = view
            .tag
            .as_ref()
            .map(|tag| tag.user.split('@').next().unwrap_or_default());
        Self {
            tree: &view.tree,
            totals: totals(&view.tree),
            user: user.unwrap_or("-").to_owned(),
            time: view
                .tag
                .as_ref()
                .map_or_else(|| "-".into(), |tag| short_time(tag.time)),
            long: args.long,
            human: args.human_readable,
            recursive: args.recursive,
        }
    }

    fn lines(&self, position: u32) -> Vec<String> {
        let node = &self.tree.nodes()[position as usize];
        if node.kind() != NodeKind::Directory {
            return self.rows(position..position + 1);
        }
        if !self.recursive {
            return self.rows(node.children());
        }
        let mut lines = Vec::new();
        for directory in directories(self.tree, position) {
            let children = self.tree.nodes()[directory as usize].children();
            if children.is_empty() && directory != position {
                continue;
            }
            lines.push(match self.tree.path(directory).as_str() {
                "" => ".:".to_owned(),
                path => format!("./{path}:"),
            });
            lines.extend(self.rows(children));
            lines.push(String::new());
        }
        lines
    }

    fn rows(&self, positions: std::ops::Range<u32>) -> Vec<String> {
        let sizes: Vec<String> = positions
            .clone()
            .map(|position| {
                let bytes = self.totals[position as usize];
                if self.human {
                    size::human(bytes)
                } else {
                    bytes.to_string()
                }
            })
            .collect();
        let width = sizes.iter().map(String::len).max().unwrap_or(0);
        let row = |(position, size): (u32, &String)| {
            let node = &self.tree.nodes()[position as usize];
            let name = self.tree.name(node);
            let slash = if node.kind() == NodeKind::Directory {
                "/"
            } else {
                ""
            };
            if !self.long {
                return format!("{name}{slash}");
            }
            let mode = mode_text(node.mode);
            format!(
                "{mode} {} {size:>width$} {} {name}{slash}",
                self.user, self.time
            )
        };
        positions.zip(&sizes).map(row).collect()
    }

    fn json(&self, position: u32) -> Value {
        let node = &self.tree.nodes()[position as usize];
        let describe = |position: u32| {
            let node = &self.tree.nodes()[position as usize];
            describe(self.tree, position, node)
        };
        match (node.kind(), self.recursive) {
            (NodeKind::Directory, true) => directories(self.tree, position)
                .into_iter()
                .flat_map(|directory| self.tree.nodes()[directory as usize].children())
                .map(describe)
                .collect(),
            (NodeKind::Directory, false) => node.children().map(describe).collect(),
            _ => std::iter::once(position).map(describe).collect(),
        }
    }
}

fn describe(tree: &MergedTree, position: u32, node: &Node) -> Value {
    let kind = match node.kind() {
        NodeKind::Directory => "directory",
        NodeKind::File => "file",
        NodeKind::Symlink => "symlink",
    };
    let mut value = json!({
        "path": tree.path(position),
        "kind": kind,
        "mode": format!("{:04o}", node.mode & !S_IFMT),
    });
    if node.kind() != NodeKind::Directory {
        value["size"] = node.size.into();
        value["digest"] = node.payload.to_string().into();
    }
    value
}

/// `root` and every directory below it, the upper ones first.
fn directories(tree: &MergedTree, root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&directory) = found.get(next) {
        let children = tree.nodes()[directory as usize].children();
        found.extend(
            children.filter(|&child| tree.nodes()[child as usize].kind() == NodeKind::Directory),
        );
        next += 1;
    }
    found
}

/// Bytes of every node: children come after their directory, so one walk from the end is enough.
fn totals(tree: &MergedTree) -> Vec<u64> {
    let nodes = tree.nodes();
    let own = |node: &Node| {
        if node.kind() == NodeKind::Directory {
            0
        } else {
            node.size
        }
    };
    let mut totals: Vec<u64> = nodes.iter().map(own).collect();
    for position in (1..nodes.len()).rev() {
        let parent = nodes[position].parent as usize;
        totals[parent] = totals[parent].saturating_add(totals[position]);
    }
    totals
}

/// `drwxr-xr-x`, with set-id and sticky bits as `ls` shows them.
fn mode_text(mode: u32) -> String {
    let kind = match mode & S_IFMT {
        S_IFDIR => 'd',
        S_IFLNK => 'l',
        _ => '-',
    };
    let mut text = String::with_capacity(10);
    text.push(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

fn short_time(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%b %e %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_ls_does() {
        let table = [
            (0o100_644, "-rw-r--r--"),
            (0o104_755, "-rwsr-xr-x"),
            (0o104_644, "-rwSr--r--"),
            (0o102_750, "-rwxr-s---"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o120_777, "lrwxrwxrwx"),
        ];
        for (mode, expected) in table {
            assert_eq!(mode_text(mode), expected, "{mode:o}");
        }
    }
}
