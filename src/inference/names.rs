//! Names of models: what servers, files and people call the same one. Pure.

/// Returns a model's name without its folder and without `.gguf`.
pub(super) fn stem(file: &str) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let cut = name.len().saturating_sub(".gguf".len());
    match name.get(cut..) {
        Some(end) if cut > 0 && end.eq_ignore_ascii_case(".gguf") => &name[..cut],
        _ => name,
    }
}

/// Returns a name without the words for how it is quantised, as in `Nemotron-3-Nano-30B-A3B` for
/// `Nemotron-3-Nano-30B-A3B-IQ4_NL.gguf`.
pub(super) fn shown(file: &str) -> &str {
    let stem = stem(file);
    match stem.rsplit_once(['-', '.']) {
        Some((rest, last)) if !rest.is_empty() && is_quantisation(last) => rest.strip_suffix("-UD").unwrap_or(rest),
        _ => stem,
    }
}

/// Returns whether two names mean the same model: the same name, or the same file wherever it lies.
pub(super) fn same(one: &str, other: &str) -> bool {
    // Ollama's names end with `:latest` if nothing else was chosen.
    let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_lowercase();
    plain(one) == plain(other) || plain(stem(one)) == plain(stem(other))
}

fn is_quantisation(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    let bits = ["IQ", "TQ", "Q"].iter().find_map(|start| word.strip_prefix(start));
    matches!(word.as_str(), "F16" | "F32" | "BF16" | "MXFP4")
        || bits.is_some_and(|bits| bits.starts_with(|c: char| c.is_ascii_digit()) && bits.len() < 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shown_without_its_folder_and_its_quantisation() {
        for (file, shown_as) in [
            ("/m/Nemotron-3-Nano-30B-A3B-IQ4_NL.gguf", "Nemotron-3-Nano-30B-A3B"),
            ("Qwen3-8B-UD-Q4_K_XL.GGUF", "Qwen3-8B"),
            ("tiny-a.gguf", "tiny-a"),
            ("llama3.2:3b", "llama3.2:3b"),
            ("gpt-oss-20b-mxfp4", "gpt-oss-20b"),
            (".gguf", ".gguf"),
            ("Q4_0.gguf", "Q4_0"),
            ("", ""),
            ("é", "é"),
        ] {
            assert_eq!(shown(file), shown_as, "{file}");
        }
    }

    #[test]
    fn the_same_model_is_known_by_any_of_its_names() {
        assert!(same("a-Q4_0.gguf", "/models/a-Q4_0.gguf") && same("qwen3", "qwen3:latest") && same("A", "a"));
        assert!(!same("a-Q4_0.gguf", "a-Q8_0.gguf") && !same("qwen3:8b", "qwen3:latest"));
    }
}
