//! A certificate authority of a test's own, made with openssl.

use std::process::Command;

use super::process::Folder;

const CONFIG: &str = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\n\
                      unique_subject=no\n[any]\ncommonName=supplied\n";
const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// The years in which a certificate is valid.
#[derive(Clone, Copy)]
pub struct Years(pub u32, pub u32);

impl Years {
    pub const NOW: Self = Self(2020, 2045);
    pub const PAST: Self = Self(2019, 2020);
}

pub struct Authority {
    folder: Folder,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let folder = Folder::new("pki");
        folder.write("config", CONFIG);
        folder.write("index", "");
        folder.write("serial", "01\n");
        let authority = Self { folder };
        authority.openssl(&format!(
            "req -x509 {NEW_KEY} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"
        ));
        authority
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.read("ca.crt")
    }

    /// A certificate for `name`, with names such as `DNS:localhost,IP:127.0.0.1`.
    pub fn issue(&self, name: &str, alternatives: &str, years: Years) -> Issued {
        self.folder
            .write("extensions", &format!("subjectAltName={alternatives}\n"));
        self.openssl(&format!(
            "req {NEW_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        let Years(from, to) = years;
        self.openssl(&format!(
            "ca -batch -notext -config config -cert ca.crt -keyfile ca.key -extfile extensions \
             -startdate {from}0101000000Z -enddate {to}0101000000Z -in {name}.csr -out {name}.crt"
        ));
        Issued {
            certificate: self.read(&format!("{name}.crt")),
            key: self.read(&format!("{name}.key")),
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
