use serde_json::json;

use super::*;

/// A sample of a real llama-server, as `tests/inference/fixtures` has it.
macro_rules! sample {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("../../tests/inference/fixtures/", $name))).unwrap()
    };
}

#[test]
fn a_llama_server_with_one_model_tells_its_file_and_context() {
    let found = single(&sample!("single-props.json")).unwrap();
    let served = found.loaded().next().unwrap();
    assert_eq!((served.id.as_str(), served.name(), served.context), ("tiny-a", "/models/tiny-a.gguf", Some(1024)));
    assert_eq!(found.router, None);
    assert_eq!(single(&json!({})), None);
}

#[test]
fn a_router_tells_which_models_it_could_load() {
    let found = router(&sample!("router-props.json"), &sample!("router-models.json"));
    let told: Vec<_> = found.models.iter().map(|model| (model.id.as_str(), model.name(), model.state)).collect();
    let unloaded = ModelState::Unloaded;
    assert_eq!(told, [("tiny-a", "/models/tiny-a.gguf", unloaded), ("tiny-b", "/models/tiny-b.gguf", unloaded)]);
    assert_eq!((found.models[0].context, found.router), (Some(2048), Some(1)));
    let state = |status: Value| {
        let list = json!({"data": [{"id": "a", "status": status}]});
        router(&json!({"role": "router"}), &list).models.first().map(|model| model.state)
    };
    let with = |value: &str, failed: bool| state(json!({"value": value, "failed": failed, "args": []}));
    assert_eq!(with("loaded", false), Some(ModelState::Loaded));
    assert_eq!(with("sleeping", false), Some(ModelState::Loaded), "it answers once it is asked");
    assert_eq!(with("loading", false), Some(ModelState::Loading));
    assert_eq!(with("unloaded", true), Some(ModelState::Failed));
}

#[test]
fn ollama_and_vllm_are_read_as_they_are_documented() {
    let tags = json!({"models": [{"name": "gemma3", "size": 3_338_801_804_u64}, {"name": "llama3.2:latest", "size": 2_019_393_189}]});
    let none = ollama(&json!({"models": []}), &tags);
    assert_eq!((none.loaded().count(), none.models.len()), (0, 2));
    let loaded = json!({"models": [{"name": "gemma3", "model": "gemma3", "size": 6_591_830_464_u64, "size_vram": 5_333_539_264_u64, "context_length": 4096}]});
    let one = ollama(&loaded, &tags);
    let served = one.loaded().next().unwrap();
    assert_eq!((served.id.as_str(), served.context, one.models.len()), ("gemma3", Some(4096), 2));
    let list = json!({"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "object": "model", "owned_by": "vllm", "max_model_len": 40_960}]});
    let served = &vllm(&list).models[0];
    assert_eq!((served.id.as_str(), served.context, served.state), ("Qwen/Qwen3-8B", Some(40_960), ModelState::Loaded));
}

proptest::proptest! {
    #[test]
    fn whatever_a_server_says_is_read(text in "[\\[\\]{}\":,a-z0-9 ]{0,80}", field in "data|models|status|args|id|name") {
        let value = serde_json::from_str::<Value>(&text).unwrap_or_else(|_| json!({ field.as_str(): text }));
        let nested = json!({ field.as_str(): [value.clone(), { "id": value.clone(), "status": { "args": value.clone() } }] });
        for value in [value, nested] {
            let _ = single(&value);
            let _ = router(&value, &value);
            let _ = vllm(&value);
            let _ = ollama(&value, &value);
        }
    }
}
