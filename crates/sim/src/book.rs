//! What a node knows of the rules of other cluster files, as `node::rules::RuleBook`: there their text goes over links, here the
//! number of the file.

use engine::wire::Frame;

use crate::file::{File, FileId};
use crate::node::{Cx, Port};

/// See the module's head.
#[derive(Debug)]
pub struct Book {
    /// The file that the process was started with.
    pub file: FileId,
    /// Others, in the order of learning.
    former: Vec<FileId>,
}

impl Book {
    /// A start with the file that there is now, and what the disk remembers; it is remembered from now on.
    pub fn open(cx: &mut Cx<'_>) -> Book {
        let former: Vec<FileId> = cx.disk.files.iter().copied().filter(|file| *file != cx.file).collect();
        cx.disk.files = std::iter::once(cx.file).chain(former.iter().copied()).collect();
        Book { file: cx.file, former }
    }

    /// A start without a disk that lasts.
    pub fn blank(cx: &Cx<'_>) -> Book {
        Book { file: cx.file, former: Vec::new() }
    }

    /// Others than its own.
    pub fn former(&self) -> &[FileId] {
        &self.former
    }

    /// Whether rules of this version are known.
    pub fn knows(&self, files: &[File], version: u64) -> bool {
        std::iter::once(&self.file).chain(&self.former).any(|file| files[*file].versions.rules == version)
    }

    /// Another node told of a file; which, if that is news. `lasts`: it is noted on the disk.
    pub fn learn(&mut self, cx: &mut Cx<'_>, told: &[u8], lasts: bool) -> Option<FileId> {
        let file = told.first().map(|number| usize::from(*number)).filter(|file| *file < cx.setup.files.len())?;
        if file == self.file || self.former.contains(&file) {
            return None;
        }
        self.former.push(file);
        if lasts {
            cx.disk.files.push(file);
        }
        cx.truth.visit("former rules learnt");
        Some(file)
    }

    /// Tells the other end of a link what it has not been told.
    pub fn tell(&self, cx: &mut Cx<'_>, to: Port, told: &mut usize) {
        let files = std::iter::once(&self.file).chain(&self.former);
        for file in files.skip(std::mem::replace(told, self.former.len() + 1)) {
            cx.say(to, Frame::Rules(vec![u8::try_from(*file).unwrap_or(u8::MAX)].into()));
        }
    }
}
