//! Transforms of images against torchvision: the same bytes.

use std::collections::BTreeMap;

use qpipe_worker::data::{Dataset, Loader, Order};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::{parity, python};

#[test]
fn transforms_give_torchvisions_bytes() {
    let folder = tempfile::tempdir().unwrap();
    assert!(python::torch("images.py").arg(folder.path()).status().unwrap().success());
    let expected = parity::arrays(&folder.path().join("expected.npz"));
    let chains = [
        ("exact", "rgb", json!([{ "resize": [16, 16] }])),
        ("flat", "rgb", json!([{ "resize": [16, 400] }])),
        ("middle", "rgb", json!([{ "resize": 20 }, { "center_crop": 16 }])),
        ("gray", "gray", json!([{ "resize": [15, 22] }])),
        ("window", "rgb", json!([{ "random_resized_crop": { "size": [12, 10] } }])),
        (
            "flipped",
            "rgb",
            json!([{ "random_vertical_flip": 1.0 }, { "resize": [16, 16] }, { "random_horizontal_flip": 1.0 }]),
        ),
    ];
    for (name, color, transform) in &chains {
        let spec = json!({
            "format": "image-folder", "path": "@input", "color": color, "transform": transform,
        });
        let paths = BTreeMap::from([("path".to_owned(), folder.path().join("images"))]);
        let dataset = Dataset::open(&serde_json::from_value(spec).unwrap(), &paths).unwrap();
        let augment = *name == "flipped";
        let loader = Loader::new(&dataset, 1, Order::Sequential, augment, 1);
        let mut count = 0;
        for (index, batch) in loader.enumerate() {
            let found = (batch.unwrap().images.to_device(Device::Cpu) * 255.0).round();
            let found = found.to_kind(Kind::Uint8).squeeze_dim(0);
            let expected: &Tensor = &expected[&format!("{name}_{index:02}")];
            assert_eq!(found.size(), expected.size(), "{name}, image {index}");
            let other = found.ne_tensor(expected).sum(Kind::Int64).int64_value(&[]);
            assert_eq!(other, 0, "{name}, image {index}: bytes that differ of {}", found.numel());
            count += 1;
        }
        assert_eq!(count * chains.len(), expected.len());
    }
}
