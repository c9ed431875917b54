//! Tables as text: CSV (RFC 4180). The runner looks up which images a table names, the worker
//! reads them.

/// Records with the lines they begin at; empty lines are left out. Quotes hide commas and line
/// ends, a quote is doubled within.
///
/// # Errors
///
/// A quote that is not closed, with its line.
pub fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records = Vec::new();
    let (mut line, mut start) = (1, 1);
    let (mut record, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        // A line ends as on any system: LF, CR LF, or CR alone.
        let ends = character == '\n' || character == '\r' && characters.peek() != Some(&'\n');
        line += usize::from(ends);
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() => {
                field.clear();
                quoted = true;
            }
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' | '\r' if ends && !quoted => {
                record.push(std::mem::take(&mut field));
                let record = std::mem::take(&mut record);
                if record.len() > 1 || !record[0].trim().is_empty() {
                    records.push((start, record));
                }
                start = line;
            }
            '\r' if !quoted => {}
            _ => field.push(character),
        }
    }
    if quoted {
        return Err(format!("line {start}: a quote is not closed"));
    }
    record.push(field);
    if record.len() > 1 || !record[0].trim().is_empty() {
        records.push((start, record));
    }
    Ok(records)
}
