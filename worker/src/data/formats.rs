//! The table of formats: one file each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use qpipe::stages::data::{DataFormat, DataSpec};

use super::pixels::Pixels;
use super::{csv, idx, image_folder, images};
use crate::Result;

/// Images of a data set, all of them, before `skip` and `limit`.
pub(super) trait Source: Send + Sync {
    /// Label of each image, an index into the classes; 0 of all where there are none.
    fn labels(&self) -> &[usize];
    /// Whether labels are known.
    fn labelled(&self) -> bool {
        true
    }
    /// Class names.
    fn classes(&self) -> &[String];
    /// Whether classes are what is found in folders or names, sorted, so that one without an image moves those behind it.
    fn classes_found(&self) -> bool {
        false
    }
    /// Image `index`.
    fn pixels(&self, index: usize) -> Result<Cow<'_, Pixels>>;
    /// For messages: file, and index where the file has several.
    fn name(&self, index: usize) -> String;
    /// Height and width, where all images share them.
    fn size(&self) -> Option<(usize, usize)>;
    /// Remarks for the log.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Opens the files at ports `path` and `labels`.
pub(super) type Open = fn(&DataSpec, &BTreeMap<String, PathBuf>) -> Result<Box<dyn Source>>;

/// A line of the table.
pub(super) struct Format {
    pub format: DataFormat,
    /// Opens it; the paths are those of the ports `path` and `labels`.
    pub open: Open,
}

/// All formats.
pub(super) const FORMATS: &[Format] = &[
    Format { format: DataFormat::Idx, open: idx::open },
    Format { format: DataFormat::ImageFolder, open: image_folder::open },
    Format { format: DataFormat::Csv, open: csv::open },
    Format { format: DataFormat::Images, open: images::open },
];
