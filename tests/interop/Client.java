// A client: java Client.java PORT < TEXTS, one text a line. Sends them all at once, then prints what
// the server replies, one text a line, until the server closes. Sections 3 and 4 of protocol.md
// with javax.crypto, for 512 bits.

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.spec.X509EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import javax.crypto.Cipher;

public class Client {
  static final int BLOCK = 64;
  static final int PART = BLOCK - 11;

  /** What SubjectPublicKeyInfo has before the PKCS#1 key, if that has the exponent 65537. */
  static final byte[] HEADER =
      HexFormat.of().parseHex("305C300D06092A864886F70D0101010500034B00");

  static String keyLine(PublicKey key) {
    byte[] encoded = key.getEncoded();
    return encode(Arrays.copyOfRange(encoded, HEADER.length, encoded.length));
  }

  static PublicKey readKeyLine(String line) throws GeneralSecurityException {
    ByteArrayOutputStream encoded = new ByteArrayOutputStream();
    encoded.writeBytes(HEADER);
    encoded.writeBytes(Base64.getDecoder().decode(line));
    X509EncodedKeySpec spec = new X509EncodedKeySpec(encoded.toByteArray());
    PublicKey key = KeyFactory.getInstance("RSA").generatePublic(spec);
    if (!keyLine(key).equals(line)) throw new IllegalStateException("not the line of this key");
    return key;
  }

  static String seal(PrivateKey key, String text) throws GeneralSecurityException {
    Cipher cipher = Cipher.getInstance("RSA/ECB/PKCS1Padding");
    cipher.init(Cipher.ENCRYPT_MODE, key);
    byte[] octets = text.getBytes(ISO_8859_1);
    ByteArrayOutputStream sealed = new ByteArrayOutputStream();
    for (int at = 0; at == 0 || at < octets.length; at += PART) {
      sealed.writeBytes(cipher.doFinal(octets, at, Math.min(PART, octets.length - at)));
    }
    return encode(sealed.toByteArray());
  }

  static String open(PublicKey key, String line) throws GeneralSecurityException {
    Cipher cipher = Cipher.getInstance("RSA/ECB/PKCS1Padding");
    cipher.init(Cipher.DECRYPT_MODE, key);
    byte[] sealed = Base64.getDecoder().decode(line);
    if (!encode(sealed).equals(line)) throw new IllegalStateException("not canonical base64");
    StringBuilder text = new StringBuilder();
    for (int at = 0; at < sealed.length; at += BLOCK) {
      if (text.length() % PART != 0) throw new IllegalStateException("a block is not full");
      text.append(new String(cipher.doFinal(sealed, at, BLOCK), ISO_8859_1));
    }
    return text.toString();
  }

  static String encode(byte[] octets) {
    return Base64.getEncoder().encodeToString(octets);
  }

  public static void main(String[] arguments) throws Exception {
    String[] texts = new String(System.in.readAllBytes(), ISO_8859_1).split("\n", -1);
    KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
    generator.initialize(8 * BLOCK);
    KeyPair own = generator.generateKeyPair();
    StringBuilder lines = new StringBuilder(keyLine(own.getPublic()) + "\n");
    for (String text : Arrays.copyOf(texts, texts.length - 1)) {
      lines.append(seal(own.getPrivate(), text)).append("\n");
    }
    try (Socket socket = new Socket("127.0.0.1", Integer.parseInt(arguments[0]))) {
      socket.getOutputStream().write(lines.toString().getBytes(ISO_8859_1));
      BufferedReader reader =
          new BufferedReader(new InputStreamReader(socket.getInputStream(), ISO_8859_1));
      PublicKey serverKey = readKeyLine(reader.readLine());
      for (String line; (line = reader.readLine()) != null; ) {
        System.out.write((open(serverKey, line) + "\n").getBytes(ISO_8859_1));
      }
      System.out.flush();
    }
  }
}
