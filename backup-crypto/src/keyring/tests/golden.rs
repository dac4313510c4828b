//! Slots and a frame that another implementation, in Python, wrote from the specification. They must be readable for
//! ever.

use super::*;

const PASSPHRASE_SLOT: &[u8] = include_bytes!("../golden/slot-passphrase-v1");
const KEY_FILE_SLOT: &[u8] = include_bytes!("../golden/slot-key-file-v1");
const SLOT_KEY: &str = "keys/1/101112131415161718191a1b1c1d1e1f";

#[tokio::test]
async fn what_another_implementation_wrote_from_the_specification_is_read() {
    let by_passphrase = Recipient::passphrase("pässword".to_owned()).unwrap();
    let by_key_file = Recipient::key_file(b"BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=").unwrap();
    for (slot, recipient) in [(PASSPHRASE_SLOT, by_passphrase), (KEY_FILE_SLOT, by_key_file)] {
        let (store, sink) = store();
        let key = ObjectKey::new(SLOT_KEY).unwrap();
        replace(&store, &key, slot);
        let keyring = Keyring::unlock(&sink, &[recipient], &JobContext::new()).await.unwrap();
        check(&keyring);
        keyring.check_slot(&key, slot).unwrap();
    }
}

fn check(keyring: &Keyring) {
    assert_eq!(keyring.repository().to_string(), "000102030405060708090a0b0c0d0e0f");
    assert_eq!(keyring.chunk_id_function(), ChunkIdFunction::HmacSha256);
    assert_eq!(
        keyring.chunk_id(b"content of a chunk").to_string(),
        "7e9139d7982445736b78c4aca17c0227609507a2c0b6fb90fd54a670a15cc848"
    );
    assert_eq!(
        hex::encode(keyring.chunker_key().unwrap()),
        "492e596a331a5414f9a57dd57d341fe0f4b97d13229dfceb4d9c3acb90aa4dfe"
    );
    let mut commitment = [0; 32];
    let digits = "76c67d3fd32581ea1691a9dc0783021343aa5d1badacd2c0c01598d5784d99d9";
    hex::decode_to_slice(digits, &mut commitment).unwrap();
    let header = ProtectionHeader { epoch: 1, salt: [7; 32], commitment, encapsulation: Vec::new() };
    let opener = keyring.open(ObjectType::Data, &header).unwrap();
    let frame = FrameContext {
        chunks: 1,
        repository: &keyring.repository.0,
        object_type: ObjectType::Data,
        salt: &[7; 32],
        ordinal: 9,
        plain_len: 18,
        associated_data: b"associated data",
    };
    let sealed = hex::decode("b11728743e9927fd9947cc4f406fdc881ae6f55f0593a9f8a08a270c3018f7b3c7ab").unwrap();
    let mut plain = Vec::new();
    opener.decode(&frame, &sealed, &mut plain, 18).unwrap();
    assert_eq!(plain, b"content of a frame");
}
