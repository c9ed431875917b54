//! The report as one HTML file without anything outside it.

use std::fmt::Write as _;

use super::Report;

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1a7f37; --bad: #cf222e; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 76rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .4rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { font-weight: 600; }
thead tr:first-child th { text-align: left; border-bottom: none; }
.first { border-left: 1px solid var(--line); }
tr.baseline td { background: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
.notes { color: #777; font-size: .9rem; max-width: 60rem; }
";

impl Report {
    /// A self-contained page: no script, no address.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
             <div class=\"scroll\">\n<table>\n"
        );
        self.head(&mut text);
        self.body(&mut text);
        text.push_str("</table>\n</div>\n<div class=\"notes\">\n");
        for failure in &self.failures {
            let _ = writeln!(text, "<p class=\"bad\"><b>Failed:</b> {}</p>", escape(failure));
        }
        for note in &self.notes {
            let _ = writeln!(text, "<p>{}</p>", escape(note));
        }
        text.push_str("</div>\n</body>\n</html>\n");
        text
    }

    fn head(&self, text: &mut String) {
        let groups = self.groups();
        text.push_str("<thead>\n<tr><th></th>");
        for group in &groups {
            let (span, title) = (group.columns.len(), escape(&group.title));
            let _ = write!(text, "<th class=\"first\" colspan=\"{span}\">{title}</th>");
        }
        let _ = write!(text, "</tr>\n<tr><th>{}</th>", escape(&self.heading()));
        for group in &groups {
            for (index, column) in group.columns.iter().enumerate() {
                let class = if index == 0 { " class=\"first\"" } else { "" };
                let _ = write!(text, "<th{class}>{}</th>", escape(&column.title));
            }
        }
        text.push_str("</tr>\n</thead>\n");
    }

    fn body(&self, text: &mut String) {
        let groups = self.groups();
        text.push_str("<tbody>\n");
        for (index, row) in self.rows.iter().enumerate() {
            let class = if row.against == Some(index) { " class=\"baseline\"" } else { "" };
            let _ = write!(text, "<tr{class}><td>{}</td>", escape(&row.title));
            for group in &groups {
                for (position, column) in group.columns.iter().enumerate() {
                    let cell = &column.cells[index];
                    let mut classes = Vec::new();
                    if position == 0 {
                        classes.push("first");
                    }
                    // Only differences carry a sign.
                    match cell.chars().next() {
                        Some('+') => classes.push("good"),
                        Some('-') if matches!(column.title.as_str(), "Δ" | "gain") => {
                            classes.push("bad");
                        }
                        _ => {}
                    }
                    let _ = match classes[..] {
                        [] => write!(text, "<td>{}</td>", escape(cell)),
                        _ => write!(
                            text,
                            "<td class=\"{}\">{}</td>",
                            classes.join(" "),
                            escape(cell)
                        ),
                    };
                }
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</tbody>\n");
    }
}

/// Text in which nothing is markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
