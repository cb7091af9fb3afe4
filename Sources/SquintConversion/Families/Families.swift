/// All families that can be converted. A new one gets a file of its own in this folder and its line here.
package enum Families {
  package static let decoders: [DecoderFamily] = [.llama, .mistral, .qwen2, .qwen3, .gemma3]
}
