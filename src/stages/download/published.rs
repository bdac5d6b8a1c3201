//! Weights that are published under a name: torchvision's files, whose names hold the first eight digits of
//! their SHA-256.

/// Where torchvision's files lie.
pub(super) const BASE: &str = "https://download.pytorch.org/models/";

/// Published files by network: `IMAGENET1K_V1`, torchvision's names.
pub(super) const WEIGHTS: [(&str, &str); 5] = [
    ("resnet18", "resnet18-f37072fd.pth"),
    ("resnet50", "resnet50-0676ba61.pth"),
    ("resnet101", "resnet101-63fe2227.pth"),
    ("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth"),
    ("wide_resnet101_2", "wide_resnet101_2-32ee1156.pth"),
];

/// The digits of the SHA-256 that a published name holds.
pub(super) fn prefix(file: &str) -> &str {
    file.rsplit_once('-').and_then(|(_, rest)| rest.split_once('.')).map_or("", |(digits, _)| digits)
}
