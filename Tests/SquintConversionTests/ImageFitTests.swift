import Foundation
import SquintConversion
import SquintFile
import Testing

/// How images that are no squares become some.
@Suite struct ImageFitTests {
  private func images(_ json: String) throws -> ImageConfiguration {
    try ImageConfiguration(huggingFace: JSONValue(parsing: json, name: "test"), place: "test")
  }

  /// Stretched, DINOv2's and SigLIP's usual images are what a file with a plain resize says (with transformers' classes:
  /// BitImageProcessor cuts 224 × 224 pixels out unless it is told not to).
  @Test func stretchedIsAPlainResize() throws {
    for (processor, more) in [("BitImageProcessor", ", \"do_center_crop\": false"), ("SiglipImageProcessor", "")] {
      let name = "\"image_processor_type\": \"\(processor)\""
      var cut = try images("{\(name), \"size\": {\"height\": 224, \"width\": 224}}")
      #expect((cut.crop != nil) == (processor == "BitImageProcessor"))
      for side in [224, 98] {
        let plain = try images("{\(name), \"size\": {\"height\": \(side), \"width\": \(side)}\(more)}")
        try cut.resize(toSide: side)
        var stretched = cut
        try stretched.fit(.stretch)
        #expect(stretched == plain)
        #expect(plain.resize == .exact(height: side, width: side) && plain.crop == nil)
        #expect(plain.tileSize == ImageConfiguration.Size(height: side, width: side))
      }
    }
  }

  @Test func whatIsStretched() throws {
    for (json, height, width) in [
      (#"{"size": {"shortest_edge": 100}, "crop_size": {"height": 60, "width": 80}}"#, 60, 80),
      (#"{"size": {"shortest_edge": 100}, "do_center_crop": false}"#, 100, 100),
      (#"{"size": {"height": 50, "width": 70}, "do_center_crop": false}"#, 50, 70),
      (
        #"{"image_processor_type": "LlavaImageProcessor", "size": {"shortest_edge": 100}, "crop_size": 100, "do_pad": true}"#,
        100, 100
      ),
    ] {
      var stretched = try images(json)
      let before = stretched
      try stretched.fit(.stretch)
      #expect(stretched.resize == .exact(height: height, width: width), "\(json)")
      #expect(stretched.crop == nil && stretched.squareBackground == nil)
      #expect(stretched.mean == before.mean && stretched.std == before.std && stretched.filter == before.filter)
    }
    var asItIs = try images(#"{"do_resize": false, "do_center_crop": false}"#)
    #expect(squintError { try asItIs.fit(.stretch) }?.message.contains("--image-size") == true)
    try asItIs.resize(toSide: 64)
    try asItIs.fit(.stretch)
    #expect(asItIs.resize == .exact(height: 64, width: 64))
    var tiles = try images(#"{"image_processor_type": "SmolVLMImageProcessor"}"#)
    for fit in ConversionOptions.ImageFit.allCases {
      #expect(squintError { try tiles.fit(fit) }?.kind == .usage)
    }
    // Stretched already: there is nothing to cut or to pad.
    #expect(squintError { try asItIs.fit(.crop) }?.kind == .usage)
  }

  /// Images that are taken as they are have a square as soon as a size is given.
  @Test func theSizeIsKnownBeforeTheFit() throws {
    try withFolder { folder in
      var vision = SyntheticVision()
      vision.checkpoint.files["preprocessor_config.json"] = #"{"do_resize": false, "do_center_crop": false}"#
      try vision.checkpoint.write(to: folder)
      var options = ConversionOptions()
      options.imageFit = .stretch
      #expect(squintError { try planConversion(source: folder, options: options) }?.kind == .usage)
      options.imageSize = 28
      #expect(squintError { try planConversion(source: folder, options: options) } == nil)
    }
  }

  /// An ONNX file has no settings of images: DINOv2's mean and deviation stay.
  @Test(arguments: [nil, 20]) func anONNXFile(side: Int?) throws {
    try withFolder { folder in
      var options = ConversionOptions()
      options.imageFit = .stretch
      options.imageSize = side
      let sources = ConversionSources(encoders: ["image": ReaderFixtures.path("onnx/traced.onnx")])
      try convert(sources, to: "\(folder)/m.squint", options: options)
      let metadata = try ModelFile(path: "\(folder)/m.squint").metadata
      let pixels = Int64(side ?? 12)
      #expect(metadata["image.resize"] == .string("exact"))
      #expect(metadata["image.size"] == .ints([pixels, pixels]))
      #expect(metadata["image.crop"] == nil)
      #expect(metadata["image.pad_to_square"] == nil)
      #expect(metadata["image.mean"] == .floats([0.485, 0.456, 0.406]))
      #expect(metadata["image.std"] == .floats([0.229, 0.224, 0.225]))
    }
  }
}
