import Foundation
import Squint
import SquintFile
import Testing

/// Images in conversations: what is looked at when, and how prompts with images are put together.
@Suite struct ImageSessionTests {
  private let square = VisionFixture.image("square.png")
  private let wide = VisionFixture.image("wide.png")

  private func answer(_ session: Session, _ count: Int = 6) throws -> [Int32] {
    var generator = Generator(session, GenerationOptions(maxTokens: count, stopsAtStopTokens: false))
    var tokens: [Int32] = []
    while let token = try generator.next() { tokens += [token.id].compactMap { $0 } }
    return tokens
  }

  /// A second question about an image does not encode it again, and its answer is that of a session that computes all anew.
  @Test(arguments: ["llava-clip", "smolvlm"]) func aImageStaysInTheConversation(_ name: String) throws {
    let model = try VisionFixture.named(name).model(.f32)
    let (first, second) = (try model.image(square), try model.image(wide))
    let session = try Session(
      model, SessionOptions(context: 256, kvType: .f32, threads: 1, chunk: 5, media: .always))
    var messages = [try ChatMessage(role: "user", "What is it?", images: 1)]
    try session.append(model.prompt(messages, media: [first]))
    _ = try answer(session)
    #expect(session.encoded.media == 1)

    messages += [ChatMessage(role: "assistant", "A"), try ChatMessage(role: "user", "And?", images: 0)]
    try session.replace(with: model.prompt(messages, media: [first]))
    #expect(session.cachedCount > first.rows)
    _ = try answer(session)
    #expect(session.encoded.media == 1)

    // Another image behind what the cache holds, which the encoder must leave alone.
    messages += [ChatMessage(role: "assistant", "B"), try ChatMessage(role: "user", "Now <image>?", images: 1)]
    let prompt = try model.prompt(messages, media: [first, second])
    try session.replace(with: prompt)
    let continued = try answer(session)
    #expect(session.encoded.media == 2)

    let fresh = try Session(
      model,
      SessionOptions(context: 256, kvType: .f32, threads: 1, media: .once([first.size, second.size])))
    try fresh.append(prompt)
    #expect(try answer(fresh) == continued)
  }

  /// An image that is another one, though the tokens are the same, is looked at.
  @Test func anotherImageIsAnother() throws {
    let model = try VisionFixture.named("llava-clip").model(.f32)
    let session = try Session(model, SessionOptions(context: 128, threads: 1, media: .always))
    let images = [try model.image(square), try model.image(wide)]
    for image in images {
      try session.replace(with: model.prompt(text: "The <image> is", media: [image]))
      _ = try answer(session, 1)
    }
    #expect(session.encoded.media == 2)
    // Cut in the middle of the image, what remains of it is computed again.
    let prompt = try model.prompt(text: "The <image> is", media: [images[1]])
    session.truncate(to: prompt.count - 6)
    try session.replace(with: prompt)
    #expect(session.cachedCount == prompt.count - 6)
    _ = try answer(session, 1)
    #expect(session.encoded.media == 3)
  }

  /// Where a prompt has more images than the session's buffer holds, they are looked at one after the other.
  @Test func manyImagesInOnePrompt() throws {
    let model = try VisionFixture.named("llava-clip").model(.f32)
    let images = try [square, wide, square, VisionFixture.image("tall.png")].map { try model.image($0) }
    let prompt = try model.prompt(text: "a <image> b <image><image> c <image> d", media: images)
    let one = try logits(model, prompt, SessionOptions(kvType: .f32, threads: 1, media: .always))
    let all = try logits(
      model, prompt, SessionOptions(kvType: .f32, threads: 1, media: .once(images.map(\.size))))
    // Chunks end elsewhere, so that sums are in another order.
    #expect(largestDifference(one.flatMap { $0 }, all.flatMap { $0 }) < 1e-4)
    #expect(
      caught { _ = try logits(model, prompt, SessionOptions(threads: 1, media: .once([images[0].size]))) }?.kind
        == .usage)
    #expect(caught { _ = try logits(model, prompt, SessionOptions(threads: 1)) }?.kind == .usage)
  }

  /// Cancelled while it looks, a session has seen nothing, and looks again.
  @Test func cancelledWhileItLooks() throws {
    let model = try VisionFixture.named("smolvlm").model(.f32)
    let image = try model.image(wide)
    let prompt = try model.prompt(text: "What?", media: [image])
    let options = SessionOptions(kvType: .f32, threads: 1, media: .once([image.size]))
    let session = try Session(model, options)
    try session.append(prompt)
    session.onProgress = { [cancellation = session.cancellation] progress in
      if case .encode(_, unit: 1, _) = progress { cancellation.cancel() }
    }
    #expect(try answer(session).isEmpty && session.encoded.media == 0)
    session.onProgress = nil
    session.cancellation.reset()
    let again = try answer(session)
    let fresh = try Session(model, options)
    try fresh.append(prompt)
    #expect(try answer(fresh) == again)
    #expect(session.encoded.media == 1)
  }

  /// The pixels are in the plan of looking alone: whatever becomes of that, they do not stay.
  @Test func pixelsDoNotStay() throws {
    let model = try VisionFixture.named("smolvlm").model(.f32)
    let folder = try TemporaryFolder()
    let broken = folder.path + "/broken.png"
    let bytes = try Data(contentsOf: URL(fileURLWithPath: wide))
    try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: broken))

    let cancellation = Cancellation()
    var images = [try model.image(square), try model.image(wide)]
    var session = try Session(
      model, SessionOptions(context: 256, threads: 1, media: .once(images.map(\.size))), cancellation: cancellation)
    session.onProgress = { _ in cancellation.cancel() }
    try session.append(model.prompt(text: "<image> <image>", media: images))
    #expect(try session.forEachLogits { _, _ in } == false)
    #expect(images.allSatisfy { !$0.isDecoded })

    images = [try model.image(square), try model.image(broken)]
    session = try Session(model, SessionOptions(context: 256, threads: 1, media: .once(images.map(\.size))))
    try session.append(model.prompt(text: "<image> <image>", media: images))
    #expect(caught { try session.forEachLogits { _, _ in } }?.kind == .badData)
    #expect(images.allSatisfy { !$0.isDecoded })
  }

  /// The same image object twice, side by side.
  @Test func theImageTwice() throws {
    let model = try VisionFixture.named("original-linear").model(.f32)
    let (a, b) = (try model.image(square), try model.image(square))
    let same = try model.prompt(text: "<image><image> same?", media: [a, a])
    let two = try model.prompt(text: "<image><image> same?", media: [a, b])
    let options = SessionOptions(kvType: .f32, threads: 1, media: .once([a.size, a.size]))
    let areEqual = try logits(model, same, options) == logits(model, two, options)
    #expect(areEqual)
  }

  /// Markers and images must be as many.
  @Test func markersAndImagesMatch() throws {
    let model = try VisionFixture.named("llava-clip").model(.int8)
    let image = try model.image(square)
    for (text, count) in [("<image>", 0), ("a <image> b", 2), ("<image><image>", 1)] {
      let images = [Image](repeating: image, count: count)
      #expect(caught { _ = try model.prompt(text: text, media: images) }?.kind == .usage)
      #expect(
        caught {
          _ = try model.prompt([ChatMessage(role: "user", text, images: count)], media: images)
        }?.kind == .usage)
    }
    // Without markers, images come first.
    let first = try model.prompt(text: "What?", media: [image, image])
    #expect(try first.tokens == model.prompt(text: "<image><image>What?", media: [image, image]).tokens)
  }

  /// The template puts the image where the message has it; one that knows no images gets the marker in the text.
  @Test(arguments: VisionFixture.all) func conversationsHavePlacesForImages(_ fixture: VisionFixture) throws {
    let model = try fixture.model(.int8)
    let image = try model.image(square)
    let prompt = try model.prompt(
      [ChatMessage(role: "user", "What is <image>?", images: 1)], media: [image])
    #expect(prompt.tokens.filter { $0 == Prompt.featureToken }.count == image.rows)
    #expect(prompt.count > image.rows + 3)
  }

  /// A question without an image never touches the pages of the encoder.
  @Test func textNeverTouchesTheEncoder() throws {
    let model = try VisionFixture.named("llava-clip").model(.int8)
    let session = try Session(model, SessionOptions(context: 64, threads: 1))
    try session.append("What is the capital of France?")
    _ = try answer(session)
    #expect(try residentPages(of: "decoder", in: model.file) > 0)
    #expect(try residentPages(of: "encoder.image", in: model.file) == 0)
    #expect(try residentPages(of: "projector.image", in: model.file) == 0)

    let image = try model.image(square)
    let looking = try Session(model, SessionOptions(context: 64, threads: 1, media: .once([image.size])))
    try looking.append(model.prompt(text: "What?", media: [image]))
    let pages = Pages()
    looking.onProgress = { [file = model.file] progress in
      // The encoder has worked when the decoder begins, and its pages are gone.
      if case .prefill = progress { pages.encoderAfter = try? residentPages(of: "encoder.image", in: file) }
    }
    _ = try answer(looking)
    #expect(pages.encoderAfter == 0)
  }

  private final class Pages {
    var encoderAfter: Int?
  }

  /// Memory is planned: images, the encoder and its buffers; and what does not fit is refused before anything is read.
  @Test func imagesAreInThePlan() throws {
    let model = try VisionFixture.named("idefics3").model(.int8)
    let image = try model.image(wide)
    let text = try SessionPlan(model, SessionOptions(context: 64))
    let seeing = try SessionPlan(model, SessionOptions(context: 64, media: .once([image.size])))
    #expect(!text.phases.contains { $0.name == .encode })
    let encode = try #require(seeing.phases.first { $0.name == .encode })
    #expect(encode.items.contains { $0.name == .encoder(.image) } && !encode.items.contains { $0.name == .decoder })
    #expect(encode.items.first { $0.name == .decodingMedia }!.byteCount >= image.size.unitBytes)
    #expect(
      caught {
        _ = try SessionPlan(
          model, SessionOptions(context: 64, memory: encode.byteCount - 1, media: .once([image.size])))
      }?.kind == .doesNotFit)
  }
}

/// The pages of module `name` that this process has mapped.
private func residentPages(of name: String, in file: ModelFile) throws -> Int {
  let index = try #require(file.modules.firstIndex { $0.name == name })
  let tensors = file.tensors.filter { $0.module == index }
  let first = UInt(bitPattern: file.bytes(of: tensors.first!).baseAddress!)
  let last = UInt(bitPattern: file.bytes(of: tensors.last!).baseAddress!) + UInt(tensors.last!.range.count) - 1
  let page = UInt(sysconf(Int32(_SC_PAGESIZE)))
  let map = try #require(FileHandle(forReadingAtPath: "/proc/self/pagemap"))
  var count = 0
  for number in first / page...last / page {
    try map.seek(toOffset: UInt64(number) * 8)
    let entry = try #require(try map.read(upToCount: 8)).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
    if entry >> 63 == 1 { count += 1 }
  }
  return count
}
