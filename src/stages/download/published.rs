//! The weights that torchvision publishes. Their file names contain the first eight digits of their SHA-256.

use crate::kernels::backbone::Network;

/// Base address of the files.
pub(super) const BASE: &str = "https://download.pytorch.org/models/";

/// The files of `IMAGENET1K_V2` and their names in a manifest. There is none for `resnet18`.
const V2: [(&str, &str); 4] = [
    ("resnet50_v2", "resnet50-11ad3fa6.pth"),
    ("resnet101_v2", "resnet101-cd907fc2.pth"),
    ("wide_resnet50_2_v2", "wide_resnet50_2-9ba9bcbe.pth"),
    ("wide_resnet101_2_v2", "wide_resnet101_2-d733dc28.pth"),
];

/// Returns the file of the `IMAGENET1K_V1` weights of a network. The published `PatchCore` results use these.
pub(super) fn file(network: Network) -> &'static str {
    match network {
        Network::ResNet18 => "resnet18-f37072fd.pth",
        Network::ResNet50 => "resnet50-0676ba61.pth",
        Network::ResNet101 => "resnet101-63fe2227.pth",
        Network::WideResNet50 => "wide_resnet50_2-95faca4d.pth",
        Network::WideResNet101 => "wide_resnet101_2-32ee1156.pth",
    }
}

/// Returns all files with their names in a manifest: the name of the network, followed by `_v2` for `IMAGENET1K_V2`.
pub(super) fn choices() -> Vec<(&'static str, &'static str)> {
    Network::ALL.iter().map(|&network| (network.name(), file(network))).chain(V2).collect()
}

/// Returns the digits of the SHA-256 in the name of a file.
pub(super) fn prefix(file: &str) -> &str {
    file.rsplit_once('-').and_then(|(_, rest)| rest.split_once('.')).map_or("", |(digits, _)| digits)
}
