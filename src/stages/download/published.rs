//! Weights that are published under a name: torchvision's files, whose names hold the first eight digits of
//! their SHA-256.

/// Where torchvision's files lie.
pub(super) const BASE: &str = "https://download.pytorch.org/models/";

/// Published files, torchvision's names: `IMAGENET1K_V1` by the network's name, `IMAGENET1K_V2` with `_v2`
/// after it. `PatchCore`'s published figures are on V1; of `resnet18` there is no V2.
pub(super) const WEIGHTS: [(&str, &str); 9] = [
    ("resnet18", "resnet18-f37072fd.pth"),
    ("resnet50", "resnet50-0676ba61.pth"),
    ("resnet101", "resnet101-63fe2227.pth"),
    ("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth"),
    ("wide_resnet101_2", "wide_resnet101_2-32ee1156.pth"),
    ("resnet50_v2", "resnet50-11ad3fa6.pth"),
    ("resnet101_v2", "resnet101-cd907fc2.pth"),
    ("wide_resnet50_2_v2", "wide_resnet50_2-9ba9bcbe.pth"),
    ("wide_resnet101_2_v2", "wide_resnet101_2-d733dc28.pth"),
];

/// The digits of the SHA-256 that a published name holds.
pub(super) fn prefix(file: &str) -> &str {
    file.rsplit_once('-').and_then(|(_, rest)| rest.split_once('.')).map_or("", |(digits, _)| digits)
}
