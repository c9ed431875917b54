//! Boxes, cylinders and curves.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::layout::{Item, Layout, Line, Rect, layout};
use crate::config::Origin;
use crate::plan::Plan;

/// Advance of a letter of the names, pixels: 0.6 of the font's size, as in most monospaced fonts.
const LETTER: f64 = 7.8;
/// Letters of a name that are shown.
const LETTERS: usize = 36;
const HEIGHT: f64 = 44.0;
const MARGIN: f64 = 24.0;

const STYLE: &str = "\
:root { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #8c959f; --stage: #f0f6ff; --edge: #4177c4; --data: #fff8e6; --rim: #b8892b }
@media (prefers-color-scheme: dark) {
:root { --paper: #0d1117; --ink: #e6edf3; --soft: #9da7b3; --line: #6e7681; --stage: #14233b; --edge: #6ea8fe; --data: #2c2411; --rim: #d0a44c }
}
.paper { fill: #ffffff; fill: var(--paper) }
text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #1f2328; fill: var(--ink); text-anchor: middle }
.kind { font-size: 11px; fill: #59636e; fill: var(--soft) }
.stage { fill: #f0f6ff; fill: var(--stage); stroke: #4177c4; stroke: var(--edge) }
.data { fill: #fff8e6; fill: var(--data); stroke: #b8892b; stroke: var(--rim) }
.line { fill: none; stroke: #8c959f; stroke: var(--line); stroke-width: 1.3 }
.head { fill: #8c959f; fill: var(--line) }
";

/// A box's content.
struct Label {
    name: String,
    /// Of a stage; `None`: data.
    kind: Option<&'static str>,
}

/// What is drawn, before it has a place.
struct Picture {
    labels: Vec<Label>,
    items: Vec<Item>,
    /// Ports of each edge, as written: `fp32.model`.
    edges: BTreeMap<(usize, usize), Vec<String>>,
}

impl Plan<'_> {
    /// The selected stages as a standalone SVG without scripts, for light and dark pages. A stage's
    /// cells share a column; an edge's title names its ports.
    pub fn svg(&self) -> String {
        let picture = self.picture();
        let edges: Vec<(usize, usize)> = picture.edges.keys().copied().collect();
        picture.draw(&self.pipeline.name, &layout(&picture.items, &edges))
    }

    fn picture(&self) -> Picture {
        let mut picture = Picture { labels: Vec::new(), items: Vec::new(), edges: BTreeMap::new() };
        let mut groups: HashMap<String, usize> = HashMap::new();
        let mut place: HashMap<String, usize> = HashMap::new();
        for index in self.order() {
            let cell = self.stage(index);
            let next = groups.len();
            let group = *groups.entry(cell.name.clone()).or_insert(next);
            let to = picture.add(&cell.id, Some(cell.kind.name), group);
            place.insert(cell.id.clone(), to);
            for input in &cell.inputs {
                let name = self.origin(input);
                let from = match &input.origin {
                    Origin::Stage { id, .. } => place[id],
                    // A stage may be called as a file is.
                    Origin::Data(_) | Origin::Path(_) => {
                        *place.entry(format!("/{name}")).or_insert_with(|| {
                            let next = groups.len();
                            groups.insert(format!("/{name}"), next);
                            picture.add(&name, None, next)
                        })
                    }
                };
                picture.edges.entry((from, to)).or_default().push(name);
            }
        }
        picture
    }
}

impl Picture {
    fn add(&mut self, name: &str, kind: Option<&'static str>, group: usize) -> usize {
        let letters = name.chars().count().min(LETTERS).max(kind.unwrap_or("").len());
        let width = letters as f64 * LETTER + 28.0;
        self.labels.push(Label { name: name.to_owned(), kind });
        self.items.push(Item { group, source: kind.is_none(), width, height: HEIGHT });
        self.items.len() - 1
    }

    fn draw(&self, name: &str, layout: &Layout) -> String {
        let (width, height) = (layout.width + 2.0 * MARGIN, layout.height + 2.0 * MARGIN);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
             <g transform=\"translate({MARGIN} {MARGIN})\">\n",
            escape(name)
        );
        for line in &layout.lines {
            self.line(line, &mut text);
        }
        for (label, rect) in self.labels.iter().zip(&layout.boxes) {
            label.draw(rect, &mut text);
        }
        text.push_str("</g>\n</svg>\n");
        text
    }

    fn line(&self, line: &Line, text: &mut String) {
        let ((x1, y1), (x2, y2)) = (line.from, line.to);
        let bend = (x2 - x1) / 2.0;
        let end = if line.target.is_some() { x2 - 6.0 } else { x2 };
        let _ = write!(
            text,
            "<g><path class=\"line\" d=\"M{x1:.1} {y1:.1}C{:.1} {y1:.1} {:.1} {y2:.1} {end:.1} {y2:.1}\"/>",
            x1 + bend,
            end - bend
        );
        if let Some(target) = line.target {
            let ports = self.edges.get(&(line.source, target)).map(|ports| ports.join(", "));
            let _ = write!(
                text,
                "<path class=\"head\" d=\"M{:.1} {:.1}L{x2:.1} {y2:.1}L{:.1} {:.1}Z\"/><title>{} → {}</title>",
                x2 - 8.0,
                y2 - 4.0,
                x2 - 8.0,
                y2 + 4.0,
                escape(&ports.unwrap_or_default()),
                escape(&self.labels[target].name)
            );
        }
        text.push_str("</g>\n");
    }
}

impl Label {
    fn draw(&self, rect: &Rect, text: &mut String) {
        let Rect { x, y, width, height } = *rect;
        let middle = x + width / 2.0;
        let name = escape(&shortened(&self.name));
        if let Some(kind) = self.kind {
            let _ = writeln!(
                text,
                "<g><title>{} ({kind})</title>\
                 <rect class=\"stage\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"8\"/>\
                 <text x=\"{middle:.1}\" y=\"{:.1}\">{name}</text>\
                 <text class=\"kind\" x=\"{middle:.1}\" y=\"{:.1}\">{kind}</text></g>",
                escape(&self.name),
                y + 19.0,
                y + 35.0
            );
            return;
        }
        let (rim, half, bottom) = (6.0, width / 2.0, y + height - 6.0);
        let _ = writeln!(
            text,
            "<g><title>{}</title><path class=\"data\" d=\"M{x:.1} {:.1}A{half:.1} {rim} 0 0 1 {:.1} {:.1}\
             V{bottom:.1}A{half:.1} {rim} 0 0 1 {x:.1} {bottom:.1}Z\"/>\
             <path class=\"data\" d=\"M{x:.1} {:.1}A{half:.1} {rim} 0 0 0 {:.1} {:.1}\"/>\
             <text x=\"{middle:.1}\" y=\"{:.1}\">{name}</text></g>",
            escape(&self.name),
            y + rim,
            x + width,
            y + rim,
            y + rim,
            x + width,
            y + rim,
            y + 30.0
        );
    }
}

/// A long name without its middle.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= LETTERS {
        return name.to_owned();
    }
    let half = (LETTERS - 1) / 2;
    let (head, tail) = (&letters[..LETTERS - 1 - half], &letters[letters.len() - half..]);
    format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

/// Text for XML; control characters, which XML cannot hold, are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::assert_clear;
    use super::*;
    use crate::plan::test_pipeline as pipeline;

    #[test]
    fn it_is_xml_with_all_boxes_and_edges_and_escaped_text() {
        let pipeline = pipeline(&[
            "a < data.x /p/<b>&\"c\".txt",
            "m[1] < a data.x",
            "m[2] < a a",
            "end < m[1] m[2] data.x",
        ]);
        let plan = Plan::new(&pipeline);
        let svg = plan.svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let of_class = |class: &str| {
            let all = document.descendants();
            all.filter(|node| node.attribute("class") == Some(class)).count()
        };
        assert_eq!((of_class("stage"), of_class("data"), of_class("head")), (4, 4, 8));
        let titles: Vec<&str> = document
            .descendants()
            .filter(|n| n.has_tag_name("title"))
            .filter_map(|n| n.text())
            .collect();
        for title in ["a.out, a.out → m[2]", "data.x → end", "<b>&\"c\".txt → a", "m[1] (command)"]
        {
            assert!(titles.contains(&title), "{title} in {titles:?}");
        }
        assert!(!svg.contains("<script") && !svg.contains("href"));
        let picture = plan.picture();
        let edges: Vec<_> = picture.edges.keys().copied().collect();
        assert_clear(&layout(&picture.items, &edges));
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        let name = format!("onnx[{}]", "variant,".repeat(10));
        let short = shortened(&name);
        assert_eq!(short.chars().count(), LETTERS);
        assert!(short.starts_with("onnx[variant,") && short.ends_with("variant,]"), "{short}");
    }

    #[test]
    fn a_control_character_cannot_break_the_file() {
        assert_eq!(escape("a\u{1}<\u{fffe}b"), "a&lt;b");
    }
}
