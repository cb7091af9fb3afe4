// swift-tools-version: 6.0
import PackageDescription

// Arrows point down only: a target depends on those listed after it in this order:
// squint, squint-convert > SquintTerminal, Squint, SquintConversion > SquintModels, SquintTemplates > SquintText, SquintMedia,
// SquintCompute > SquintFile > CKernels, CImages, CSystem > CZstd, CXXHash, CEdit, CJPEG, CPNG, CWebP, CGIF, CSndfile, CMpg123, CSoxr, CKissFFT. CSquintNano, the
// model that is part of squint, belongs to the program alone: who imports Squint does not carry it.
let package = Package(
  name: "squint",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "Squint", targets: ["Squint"]),
    .library(name: "SquintConversion", targets: ["SquintConversion"]),
    .executable(name: "squint", targets: ["SquintCommand"]),
    .executable(name: "squint-convert", targets: ["SquintConvertCommand"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
  ],
  targets: [
    .executableTarget(
      name: "SquintCommand",
      dependencies: [
        "Squint", "SquintTerminal", "SquintText", "SquintMedia", "SquintCompute", "SquintFile", "CEdit", "CSquintNano",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    .executableTarget(
      name: "SquintConvertCommand",
      dependencies: [
        "SquintConversion", "SquintTerminal", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    .target(
      name: "Squint",
      dependencies: ["SquintModels", "SquintTemplates", "SquintMedia", "SquintText", "SquintCompute", "SquintFile"]),
    .target(name: "SquintTerminal", dependencies: ["SquintFile"]),
    .target(name: "SquintConversion", dependencies: ["SquintFile", "SquintText", "SquintTemplates"]),
    .target(name: "SquintModels", dependencies: ["SquintCompute", "SquintFile"]),
    .target(name: "SquintTemplates", dependencies: ["SquintText", "SquintFile"]),
    .target(name: "SquintText", dependencies: ["SquintFile"]),
    .target(
      name: "SquintMedia",
      dependencies: ["CImages", "CWebP", "CGIF", "CSndfile", "CMpg123", "CSoxr", "CKissFFT", "CSystem", "SquintFile"]),
    .target(name: "SquintCompute", dependencies: ["CKernels", "SquintFile"]),
    .target(name: "SquintFile", dependencies: ["CZstd", "CXXHash", "CSystem"]),
    .target(name: "CSystem"),
    .target(name: "CKernels"),
    .target(name: "CSquintNano", cSettings: [.headerSearchPath("../../models")]),
    .target(name: "CImages", dependencies: ["CJPEG", "CPNG"]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CEdit", pkgConfig: "libedit", providers: [.apt(["libedit-dev"])]),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    .systemLibrary(name: "CJPEG", pkgConfig: "libjpeg", providers: [.apt(["libjpeg-dev"])]),
    .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
    .systemLibrary(name: "CWebP", pkgConfig: "libwebp", providers: [.apt(["libwebp-dev"])]),
    .systemLibrary(name: "CGIF", providers: [.apt(["libgif-dev"])]),
    .systemLibrary(name: "CSndfile", pkgConfig: "sndfile", providers: [.apt(["libsndfile1-dev"])]),
    .systemLibrary(name: "CMpg123", pkgConfig: "libmpg123", providers: [.apt(["libmpg123-dev"])]),
    .systemLibrary(name: "CSoxr", pkgConfig: "soxr", providers: [.apt(["libsoxr-dev"])]),
    .systemLibrary(name: "CKissFFT", providers: [.apt(["libkissfft-dev"])]),

    .testTarget(name: "SquintFileTests", dependencies: ["SquintFile"]),
    .testTarget(name: "SquintComputeTests", dependencies: ["SquintCompute", "CKernels"]),
    .testTarget(name: "SquintTextTests", dependencies: ["SquintText", "SquintTemplates", "SquintConversion"]),
    .testTarget(name: "SquintTemplatesTests", dependencies: ["SquintTemplates", "SquintText"]),
    .testTarget(name: "SquintMediaTests", dependencies: ["SquintMedia", "SquintFile"]),
    .testTarget(name: "SquintConversionTests", dependencies: ["SquintConversion"]),
    .testTarget(name: "SquintModelsTests", dependencies: ["SquintModels", "SquintConversion", "AllocationCounter"]),
    .testTarget(
      name: "SquintTests",
      dependencies: [
        "Squint", "SquintConversion", "SquintModels", "SquintText", "SquintMedia", "SquintCompute", "SquintFile",
        "AllocationCounter",
      ]),
    .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
    .executableTarget(name: "MoleculeProbe", dependencies: ["SquintMedia", "SquintFile"], path: "Tests/MoleculeProbe"),
    .testTarget(
      name: "CommandLineTests",
      dependencies: [
        "SquintCommand", "SquintConvertCommand", "SquintTerminal", "Squint", "SquintConversion", "SquintText",
        "SquintFile",
      ]),
  ],
  swiftLanguageModes: [.v6],
  cLanguageStandard: .c11
)
