//! A director in a namespace, its guard, and what they leave behind. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says by a panic what went wrong")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{Lab, PATIENCE, read_all};
use nix::sys::signal::{Signal, kill};

const VIP: &str = "10.1.0.100:80";
/// Long enough to be under way when the director is killed: a slow reader takes some seconds.
const DOWNLOAD: usize = 48 << 20;

/// A server in the server's namespace that sends `bytes` bytes, each connection in a thread, for as long as the test runs.
fn serve(lab: &Lab, port: u16, bytes: usize) {
    let listening = Lab::within(&lab.server(), move || TcpListener::bind(("10.2.0.2", port)).unwrap());
    let listener = listening.join().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let body: Vec<u8> = (0..bytes).map(pattern).collect();
                // The reader may have gone.
                let _ = stream.write_all(&body).and_then(|()| stream.shutdown(Shutdown::Write));
            });
        }
    });
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// What one connection of the client to the VIP gives.
fn fetch(lab: &Lab) -> std::io::Result<Vec<u8>> {
    let client = || {
        let stream = TcpStream::connect_timeout(&VIP.parse().unwrap(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        read_all(stream)
    };
    Lab::within(&lab.client(), client).join().unwrap()
}

#[test]
fn root_a_stop_leaves_the_machine_as_it_was() {
    let lab = Lab::new();
    serve(&lab, 8080, 1000);
    let run = lab.run(&lab.configure(&[8080]));
    assert_eq!(fetch(&lab).unwrap().len(), 1000);
    let status = lab.status().unwrap();
    assert_eq!(status["services"][0]["destinations"][0]["connections"], 1);
    assert_eq!(status["services"][0]["destinations"][0]["way"], "resolved");
    assert_eq!(status["ports"].as_array().unwrap().len(), 3, "eth0, eth1 and the kernel port");
    assert!(status["ports"][0]["traffic"]["received_packets"].as_u64().unwrap() > 3, "{status}");
    assert!(status["counters"]["steering"]["redirected"].as_u64().unwrap() > 3, "{status}");
    assert_eq!(lab.traces().len(), 4, "{:?}", lab.traces());
    let page = String::from_utf8(lab.ask("status").stdout).unwrap();
    assert!(page.contains("TCP  10.1.0.100:80 rr\n  -> 10.2.0.2:8080 "), "{page}");
    assert!(run.stop().success());
    assert_eq!(lab.traces(), Vec::<String>::new(), "{}", lab.log());
    assert_eq!(lab.ask("status").status.code(), Some(3));
    let left: Vec<_> = std::fs::read_dir(lab.path("state")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["sluice.pid"]);
}

#[test]
fn root_a_killed_director_is_back_in_time_and_a_download_goes_on() {
    let lab = Lab::new();
    serve(&lab, 8080, DOWNLOAD);
    let run = lab.run(&lab.configure(&[8080]));
    let (first, director) = (run.guard(), run.director());
    let reader = Lab::within(&lab.client(), || {
        let mut stream = TcpStream::connect(VIP).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut buffer, mut all) = (vec![0; 256 << 10], Vec::new());
        loop {
            let n = stream.read(&mut buffer).unwrap();
            all.extend_from_slice(&buffer[..n]);
            if n == 0 {
                return all;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    lab.wait("the download runs", || lab.status().unwrap()["services"][0]["destinations"][0]["active"] == 1);
    kill(director, Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    lab.wait("another director serves", || {
        lab.status().is_some_and(|status| status["pid"] != i64::from(director.as_raw()))
    });
    let back = killed.elapsed();
    // A quarter of a second on an idle machine; later than this, the guard would have handed over.
    assert!(back < Duration::from_secs(3), "it took {back:?}; log:\n{}", lab.log());
    assert!(!lab.log().contains("not back in time"));
    let status = lab.status().unwrap();
    let server = &status["services"][0]["destinations"][0];
    assert_eq!(server["active"], 1, "the download is counted again: {server}");
    let all = reader.join().unwrap();
    assert_eq!(all.len(), DOWNLOAD);
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
    assert_eq!(run.guard(), first);
    assert!(run.stop().success());
    assert_eq!(lab.traces(), Vec::<String>::new());
}

#[test]
fn root_after_both_are_killed_the_program_stays_and_run_or_cleanup_take_over() {
    let lab = Lab::new();
    serve(&lab, 8080, 1000);
    let config = lab.configure(&[8080]);
    lab.run(&config).kill_both();
    assert_eq!(lab.traces().len(), 4, "program, pair and address stay: {:?}", lab.traces());
    let run = lab.run(&config);
    assert_eq!(fetch(&lab).unwrap().len(), 1000);
    let refused = lab.ask("cleanup");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a director is running"));
    run.kill_both();
    let cleaned = lab.ask("cleanup");
    assert!(cleaned.status.success());
    let said = String::from_utf8(cleaned.stdout).unwrap();
    for part in ["removed 10.1.0.100/24 from eth0", "took the XDP program off eth1", "veth pair", "flow tables"] {
        assert!(said.contains(part), "{part} in: {said}");
    }
    assert_eq!(lab.traces(), Vec::<String>::new());
    assert_eq!(lab.ask("cleanup").stdout, b"nothing to clean up\n");
}

#[test]
fn root_a_director_that_dies_again_and_again_is_given_up_and_nothing_is_left() {
    let lab = Lab::new();
    let mut run = lab.run(&lab.configure(&[8080]));
    for served in 1..=6 {
        lab.wait("it serves again", || lab.log().matches("the director serves").count() == served);
        kill(run.director(), Signal::SIGKILL).unwrap();
    }
    assert_eq!(run.child.wait().unwrap().code(), Some(1));
    assert!(lab.log().contains("giving up"), "{}", lab.log());
    assert_eq!(lab.traces(), Vec::<String>::new());
}

#[test]
fn root_a_director_serves_on_without_its_guard() {
    let lab = Lab::new();
    serve(&lab, 8080, 1000);
    let mut run = lab.run(&lab.configure(&[8080]));
    let director = run.director();
    kill(run.guard(), Signal::SIGKILL).unwrap();
    run.child.wait().unwrap();
    lab.wait("the director noticed", || lab.status().is_some_and(|status| status["guard_pid"].is_null()));
    assert_eq!(fetch(&lab).unwrap().len(), 1000);
    let mut second = lab.sluice("run");
    let second = second.arg("-f").arg(lab.path("sluice.conf")).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("already running"), "{second:?}");
    kill(director, Signal::SIGTERM).unwrap();
    lab.wait("the director stopped", || lab.traces().is_empty() && lab.status().is_none());
}

#[test]
fn root_a_reload_is_applied_whole_or_not_at_all() {
    let lab = Lab::new();
    serve(&lab, 8080, 80);
    serve(&lab, 8081, 81);
    let run = lab.run(&lab.configure(&[8080]));
    let file = lab.configure(&[8080, 8081]);
    assert!(lab.ask("reload").status.success());
    let mut sizes: Vec<usize> = (0..4).map(|_| fetch(&lab).unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [80, 80, 81, 81]);
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("10.2.0.2 8081", "10.2.0.2 80810")).unwrap();
    let refused = lab.ask("reload");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("80810"), "{refused:?}");
    let status = lab.status().unwrap();
    assert_eq!(status["services"][0]["destinations"].as_array().unwrap().len(), 2);
    assert!(status["configuration"]["refused"].as_str().unwrap().contains("80810"));
    std::fs::write(&file, good.replace("connections 10000", "connections 20000")).unwrap();
    kill(run.guard(), Signal::SIGHUP).unwrap();
    lab.wait("SIGHUP reached the director", || lab.log().contains("`connections` stays 10000 until a restart"));
    assert!(lab.status().unwrap()["configuration"]["refused"].is_null());
    assert!(run.stop().success());
}

#[test]
fn root_a_second_director_does_not_take_the_first_ones_interfaces() {
    let lab = Lab::new();
    serve(&lab, 8080, 1000);
    let config = lab.configure(&[8080]);
    let run = lab.run(&config);
    let mut second = lab.sluice_on("run", "other");
    let refused = second.arg("-f").arg(&config).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("interface eth0 belongs to another director"),
        "{refused:?}"
    );
    assert_eq!(fetch(&lab).unwrap().len(), 1000);
    assert!(run.stop().success());
    assert_eq!(lab.traces(), Vec::<String>::new());
}

#[test]
fn root_an_interface_that_is_not_there_is_named_with_those_that_are() {
    let lab = Lab::new();
    let file = lab.configure(&[8080]);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("idle sleep", "interface eth9 {\n    }")).unwrap();
    let mut run = lab.sluice("run");
    let failed = run.arg("-f").arg(&file).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("eth9") && said.contains("eth0") && said.contains("eth1"), "{said}");
    assert_eq!(lab.traces(), Vec::<String>::new());
}
