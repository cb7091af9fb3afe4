import SquintFile
import Testing

import Squint

@Suite struct RegionTests {
  private func regions(
    _ answer: String, _ coordinates: ImageCoordinates = .thousandths, original: (width: Int, height: Int) = (2000, 500),
    resized: (width: Int, height: Int) = (1000, 250)
  ) throws -> [ImageRegion] {
    try #require(RegionRule(coordinates, original: original, resized: resized)).regions(in: answer)
  }

  private func box(
    _ left: Double, _ top: Double, _ right: Double, _ bottom: Double, _ label: String? = nil
  ) -> ImageRegion {
    ImageRegion(.box(left: left, top: top, right: right, bottom: bottom), label: label)
  }

  @Test func internVL() throws {
    let answer = "See <ref>the cat</ref><box>[[100, 200, 300, 400], [0,0,1000,1000]]</box> and <box>[[5,6,7,8]]</box>."
    #expect(
      try regions(answer) == [
        box(200, 100, 600, 200, "the cat"), box(0, 0, 2000, 500, "the cat"), box(10, 3, 14, 4),
      ])
  }

  @Test func qwen2VL() throws {
    let answer =
      "<|object_ref_start|> a dog <|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|><|box_start|>(1, 2),(3, 4)<|box_end|>"
      + "<|im_end|><|box_start|>(500,500)<|box_end|>"
    #expect(
      try regions(answer) == [
        box(20, 10, 60, 20, "a dog"), box(2, 1, 6, 2, "a dog"), ImageRegion(.point(x: 1000, y: 250), label: nil),
      ])
  }

  /// Pixels of what the encoder sees; the fence, and what stands around, do not matter.
  @Test func qwen25VL() throws {
    let answer = """
      Here they are:
      ```json
      [
        {"bbox_2d": [10, 20, 30.5, 40], "label": "a \\"red\\" caf\\u00e9 \\ud83d\\ude00"},
        {"point_2d": [1, 2], "label": "nose", "sure": true, "more": {"a": [null, "x"]}},
        {"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]], "text_content": "line"}
      ]
      ```
      """
    #expect(
      try regions(answer, .resized) == [
        box(20, 40, 61, 80, "a \"red\" café 😀"), ImageRegion(.point(x: 2, y: 4), label: "nose"),
        box(2, 4, 6, 8, "line"), box(10, 12, 14, 16, "line"),
      ])
    #expect(try regions(answer, .thousandths).first == box(20, 10, 61, 20, "a \"red\" café 😀"))
  }

  @Test func whatIsCutOffOrNested() throws {
    let whole = #"{"objects": [{"bbox_2d": [1,2,3,4], "label": "a"}, {"point_2d": [5,6]}, {"bbox_2d": [7, 8"#
    #expect(try regions(whole) == [box(2, 1, 6, 2, "a"), ImageRegion(.point(x: 10, y: 3), label: nil)])
    #expect(
      try regions(#"{"parts": [{"point_2d": [5,6]}], "bbox_2d": [1,2,3,4]}"#) == [
        box(2, 1, 6, 2), ImageRegion(.point(x: 10, y: 3), label: nil),
      ])
    #expect(try regions("<box>[[1,2,3,4").isEmpty)
    #expect(try regions("{{\"bbox_2d\": [1,2,3,4]}").count == 1)
    #expect(try regions("<box>[[1,2<box>[[1,2,3,4]]</box>").count == 1)
  }

  @Test(
    "what is no region",
    arguments: [
      "", "no places", "f(x) = {1, 2}", "(1,2),(3,4)", "<box>", "<box></box>", "<box>[[1,2,3]]</box>",
      "<box>[[one, two]]</box>", "<box>[[1,2,3,4]]<box>", "{\"bbox_2d\": [1,2,3]}", "{\"bbox_2d\": \"1,2,3,4\"}",
      "{\"bbox_2d\": [1,2,3,\"4\"]}", "{\"bbox_2d\": [1,2,3,4]", "{\"label\": \"x\"}", "{\"bbox_2d\": [1-2,2,3,4]}",
      "{\"bbox_2d\": []}", "{}", "<ref>a</ref>", "</box></ref>",
    ])
  func none(_ answer: String) throws { #expect(try regions(answer).isEmpty) }

  @Test func labelsEnd() throws {
    #expect(try regions("<ref>a</ref> then <box>[[1,2,3,4]]</box>").first?.label == nil)
    #expect(try regions("<ref>a</ref> <box>[[1,2,3,4]]</box>, <box>[[1,2,3,4]]</box>").map(\.label) == ["a", "a"])
    #expect(try regions("<ref>open\n{\"bbox_2d\": [1,2,3,4]}").count == 1)
  }

  /// Places are in the image, their corners in order, and huge numbers at its edge.
  @Test func edges() throws {
    #expect(try regions("<box>[[300,400,100,200]]</box>") == [box(200, 100, 600, 200)])
    #expect(try regions("<box>[[-5,-1e999,1e999,99999999999999999999999999]]</box>") == [box(0, 0, 2000, 500)])
    let digits = String(repeating: "9", count: 5000)
    #expect(try regions("{\"point_2d\": [\(digits), -\(digits)]}") == [ImageRegion(.point(x: 2000, y: 0), label: nil)])
    #expect(RegionRule(.resized, original: (1, 1), resized: (0, 1)) == nil)
    #expect(RegionRule(.thousandths, original: (0, 1), resized: (1, 1)) == nil)
  }

  /// Time in proportion to the length.
  @Test(arguments: [
    "{", "[", "{\"a\":", "{\"a\":[", "<box>", "<box>[[1,", "<ref>", "<|box_start|>(", "{\"", "{\"a\":\"\\u", "<", "1",
    "{\"bbox_2d\":[[[[[[", "{\"bbox_2d\":[1,2,3,4],\"b\":",
  ])
  func hostile(_ piece: String) throws {
    let answer = String(repeating: piece, count: 20_000)
    let time = try ContinuousClock().measure { _ = try regions(answer) }
    #expect(time < .seconds(5))
  }

  @Test func theKey() throws {
    var metadata = Metadata()
    #expect(try ImageCoordinates(metadata) == nil)
    metadata["image.coordinates"] = .string("resized")
    #expect(try ImageCoordinates(metadata) == .resized)
    metadata["image.coordinates"] = .string("inches")
    #expect(throws: SquintError.self) { try ImageCoordinates(metadata) }
  }
}
