//! Weights that are published under a name: torchvision's files, whose names hold the first eight digits of
//! their SHA-256.

use crate::kernels::backbone::Network;

/// The folder of torchvision's files.
pub(super) const BASE: &str = "https://download.pytorch.org/models/";

/// Files of `IMAGENET1K_V2` by name in a manifest; of `resnet18` there is none.
const V2: [(&str, &str); 4] = [
    ("resnet50_v2", "resnet50-11ad3fa6.pth"),
    ("resnet101_v2", "resnet101-cd907fc2.pth"),
    ("wide_resnet50_2_v2", "wide_resnet50_2-9ba9bcbe.pth"),
    ("wide_resnet101_2_v2", "wide_resnet101_2-d733dc28.pth"),
];

/// The file of a network's `IMAGENET1K_V1`, on which `PatchCore`'s published figures are.
pub(super) fn file(network: Network) -> &'static str {
    match network {
        Network::ResNet18 => "resnet18-f37072fd.pth",
        Network::ResNet50 => "resnet50-0676ba61.pth",
        Network::ResNet101 => "resnet101-63fe2227.pth",
        Network::WideResNet50 => "wide_resnet50_2-95faca4d.pth",
        Network::WideResNet101 => "wide_resnet101_2-32ee1156.pth",
    }
}

/// Every published file by name in a manifest: the network's name, with `_v2` after it for `IMAGENET1K_V2`.
pub(super) fn choices() -> Vec<(&'static str, &'static str)> {
    Network::ALL.iter().map(|&network| (network.name(), file(network))).chain(V2).collect()
}

/// The digits of the SHA-256 that a published name holds.
pub(super) fn prefix(file: &str) -> &str {
    file.rsplit_once('-').and_then(|(_, rest)| rest.split_once('.')).map_or("", |(digits, _)| digits)
}
